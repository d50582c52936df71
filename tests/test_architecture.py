"""The import rules of docs/design.md, read from the source, so that the picture there cannot rot."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fer_hf"
LEAVES = {"labels", "metrics", "image_io", "image_guards", "faces"}
DEMO_MAY_USE = {"recognition", "rendering", "tracking", "video", "hub", "contributions", *LEAVES}
MODELS_MAY_USE = {"torch", "transformers", "timm", "numpy", "PIL"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path
    for folder in (PACKAGE, ROOT / "training", ROOT / "benchmarks")
    for path in folder.rglob("*.py")
    if "_default_model" not in path.parts
}


def type_checking_nodes(tree: ast.Module) -> set[ast.AST]:
    """What stands under ``if TYPE_CHECKING:``, which is never run."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {inner for block in blocks for statement in block.body for inner in ast.walk(statement)}


def absolute(name: str, path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    parts = package[: len(package) - node.level + 1] + ([node.module] if node.module else [])
    return ".".join(parts)


def imports(name: str, *, at_import_only: bool = False) -> set[str]:
    """Full names of the modules that a module imports, anywhere or (``at_import_only``) while it is imported."""
    path = SOURCES[name]
    tree = ast.parse(path.read_text())
    skipped = type_checking_nodes(tree)
    if at_import_only:
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        skipped |= {inner for function in functions for inner in ast.walk(function)}
    found = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = absolute(name, path, node)
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in SOURCES else base for alias in node.names}
    return found


def own(name: str) -> set[str]:
    """The first part below fer_hf of everything of the package that a module imports."""
    return {target.split(".")[1] for target in imports(name) if target.startswith("fer_hf.")}


IN_PACKAGE = [name for name in SOURCES if name.split(".")[0] == "fer_hf"]
OUTSIDE_DEMO = [name for name in IN_PACKAGE if not name.startswith("fer_hf.demo")]


def test_the_reader_of_imports_sees_what_it_should():
    assert {"fer_hf.attention", "fer_hf.faces", "PIL"} <= imports("fer_hf.recognition")
    assert "transformers" not in {target.split(".")[0] for target in imports("fer_hf.recognition")}
    assert imports("fer_hf.models.modeling_resnet_swish") >= {"fer_hf.models.layers_attention", "transformers"}


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaves_import_nothing_of_the_project(leaf):
    allowed = {"fer_hf.image_guards"} if leaf == "image_io" else set()  # the two are one seam in two files
    own_imports = {target for target in imports(f"fer_hf.{leaf}") if target.split(".")[0] in ("fer_hf", "training")}
    assert own_imports <= allowed


@pytest.mark.parametrize("name", [name for name in IN_PACKAGE if name.startswith("fer_hf.models.")])
def test_models_are_flat_and_portable(name):
    foreign = {target.split(".")[0] for target in imports(name)} - {"fer_hf", *sys.stdlib_module_names}
    assert foreign <= MODELS_MAY_USE
    assert all(target.startswith("fer_hf.models.") for target in imports(name) if target.startswith("fer_hf"))
    for node in ast.walk(ast.parse(SOURCES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("fer_hf")):
            written = f"from {'.' * node.level}{node.module or ''} import"
            assert node.level == 1, f"{written}: transformers copies only siblings"
            assert node.module, f"{written}: transformers finds only from .name import X"
            assert "." not in node.module, f"{written}: the folder is flat"


def test_models_folder_has_no_subfolders():
    assert not [entry for entry in (PACKAGE / "models").iterdir() if entry.is_dir() and entry.name != "__pycache__"]


@pytest.mark.parametrize("name", OUTSIDE_DEMO)
def test_only_the_demo_knows_gradio_and_nobody_here_accelerate(name):
    assert not {"gradio", "accelerate"} & {target.split(".")[0] for target in imports(name)}
    assert "demo" not in own(name)


@pytest.mark.parametrize("name", IN_PACKAGE)
def test_the_package_never_imports_training_tests_or_benchmarks(name):
    assert not {"training", "tests", "benchmarks"} & {target.split(".")[0] for target in imports(name)}


@pytest.mark.parametrize("name", [name for name in IN_PACKAGE if name.startswith("fer_hf.demo")])
def test_the_demo_goes_through_the_public_steps(name):
    assert own(name) - {"demo"} <= DEMO_MAY_USE


def test_imports_point_one_way():
    graph = {
        name: {target for target in imports(name, at_import_only=True) if target in SOURCES and target != name}
        for name in SOURCES
    }
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError and names the cycle
    assert order.index("fer_hf.faces") < order.index("fer_hf.recognition") < order.index("fer_hf.pipelines")


def test_no_module_hides_a_public_name_or_a_library():
    import fer_hf

    assert not {"utils", "helpers", "common", "evaluate"} & {path.stem for path in SOURCES.values()}
    # Importing fer_hf.x sets fer_hf's attribute x: a public name x would turn into the module.
    assert not {path.stem for path in PACKAGE.glob("*.py")} & set(fer_hf.__all__)
    for name in set(fer_hf.__all__) - {"__version__"}:
        assert callable(getattr(fer_hf, name))


def test_importing_the_package_imports_nothing_heavy():
    heavy = ["torch", "transformers", "gradio", "accelerate", "evaluate", "matplotlib", "facenet_pytorch", "PIL"]
    code = f"import sys, fer_hf; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


MODEL_FOLDERS = sorted(path.parent for path in (ROOT / "model_cards").rglob("config.json"))


@pytest.mark.parametrize("folder", MODEL_FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_code_in_model_folders_is_that_of_the_package(folder):
    from training.sync_code import portable_code

    stored = {file.name: file.read_bytes() for file in folder.glob("*.py")}
    assert stored == portable_code(folder), f"run: python training/sync_code.py {folder.relative_to(ROOT)}"


def test_sync_brings_a_folder_up_to_date(tiny_model_path, tmp_path, capsys):
    import shutil

    from training.sync_code import main, portable_code

    folder = Path(shutil.copytree(tiny_model_path, tmp_path / "model"))
    (folder / "layers_stale.py").write_text("")
    (folder / "modeling_fer.py").write_text("old")
    main([str(folder), str(tmp_path)])
    assert {file.name: file.read_bytes() for file in folder.glob("*.py")} == portable_code(folder)
    (folder / "notes.py").write_text("mine")
    assert set(portable_code(folder)) == {
        "configuration_fer.py",
        "configuration_resnet_swish.py",
        "image_processing_fer.py",
        "layers_attention.py",
        "layers_memory.py",
        "modeling_fer.py",
        "modeling_resnet_swish.py",
    }
    assert "layers_stale.py" in capsys.readouterr().out
    main([str(folder)])
    assert (folder / "notes.py").read_text() == "mine"
    assert capsys.readouterr().out == f"{folder}: up to date\n"
