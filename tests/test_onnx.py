"""An exported model: the same numbers as torch's, all it needs inside the file, one sentence for each fault."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from fer_hf.__main__ import main as command_line
from fer_hf.data.sources import SourceOptions
from fer_hf.hub import load_model
from fer_hf.labels import FER7
from fer_hf.onnx import OnnxClassifier, find_onnx
from fer_hf.pipelines import pipeline
from fer_hf.recognition import ExpressionRecognizer
from training import export, push_to_hub, quantize
from training.scoring import labelled_rows, load

ROOT = Path(__file__).parents[1]
WITHOUT_TORCH = """
import runpy, sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "transformers"):
            raise ImportError(name)
sys.meta_path.insert(0, Refused())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def model_path(tiny_model_path, tmp_path_factory) -> Path:
    """The tiny model, calibrated, with its export beside it."""
    folder = Path(shutil.copytree(tiny_model_path, tmp_path_factory.mktemp("onnx") / "tiny"))
    config = json.loads((folder / "config.json").read_text()) | {"temperature": 0.01}  # spreads its answers
    (folder / "config.json").write_text(json.dumps(config))
    export.main(["--model", str(folder), "--format", "onnx"])
    return folder


@pytest.fixture(scope="module")
def graph(model_path) -> bytes:
    """What torch exports of the tiny model; to make it takes seconds."""
    return export.with_metadata((model_path / "model.onnx").read_bytes(), {})


@pytest.fixture(scope="module")
def crops(astronaut) -> list[Image.Image]:
    """Three crops: RGB of another size, RGB of the right size, grey."""
    face = astronaut.crop((170, 60, 280, 170))
    return [face, face.resize((48, 48)), face.convert("L")]


def test_probabilities_are_those_of_torch(model_path, crops):
    exported = OnnxClassifier(model_path / "model.onnx", threads=1)
    torch_side = ExpressionRecognizer.from_pretrained(model_path).classifier
    for some in (crops[:1], crops):
        expected = torch_side.probabilities(some)
        assert np.abs(exported.probabilities(some) - expected).max() < 1e-5
        assert np.ptp(expected, axis=1).min() > 0.01  # so that equal answers say something
    pixels = torch.stack([torch_side.processor.to_uint8(crop) for crop in crops]).numpy()
    assert np.array_equal(exported.pixels(crops), pixels)


def test_the_file_says_all_that_a_caller_needs(model_path):
    exported, processor = OnnxClassifier(model_path / "model.onnx"), load_model(model_path).processor
    assert exported.labels == FER7
    assert (exported.size_px, exported.num_channels, exported.face_margin) == (48, 1, 0.2)
    assert exported.face_template == processor.face_template
    (pixels,) = exported.session.get_inputs()
    assert (pixels.type, pixels.shape) == ("tensor(uint8)", ["batch", 1, 48, 48])
    report = json.loads((model_path / "export_report.json").read_text())
    assert report["temperature"] == 0.01
    assert report["weights_sha256"] == load(str(model_path), "cpu").weights_sha256
    assert 0 <= report["onnx"]["greatest_logit_difference"] <= export.MAX_DIFFERENCE


def test_the_file_does_not_say_where_it_was_made(model_path):
    assert Path(export.__file__).parent.as_posix().encode() not in (model_path / "model.onnx").read_bytes()


def test_rgb_and_ensembles_of_unequal_members_export(tmp_path, crops):
    from fer_hf.hub import save_portable
    from fer_hf.labels import id2label
    from fer_hf.models.configuration_resnet_swish import ResNetSwishConfig
    from fer_hf.models.image_processing_fer import FerImageProcessor
    from fer_hf.models.modeling_ensemble import FerEnsembleForImageClassification, shared_processor
    from fer_hf.models.modeling_resnet_swish import ResNetSwishForImageClassification

    torch.manual_seed(1)
    sizes = {"hidden_sizes": (8,), "depths": (1,)}
    members = [
        (
            ResNetSwishForImageClassification(
                ResNetSwishConfig(id2label=id2label(FER7), image_size=size, num_channels=channels, **sizes)
            ).eval(),
            FerImageProcessor(
                size=size, num_channels=channels, image_mean=[0.4] * channels, image_std=[0.3] * channels
            ),
        )
        for size, channels in ((48, 3), (32, 1))
    ]
    ensemble = FerEnsembleForImageClassification.from_members(members)
    folder = save_portable(ensemble, shared_processor([processor for _, processor in members]), tmp_path / "ensemble")
    export.main(["--model", str(folder)])
    exported = OnnxClassifier(folder / "model.onnx")
    assert exported.num_channels == 3
    expected = ExpressionRecognizer.from_pretrained(folder).classifier.probabilities(crops)
    assert np.abs(exported.probabilities(crops) - expected).max() < 1e-5


def test_an_export_that_answers_otherwise_is_refused(model_path, tmp_path, monkeypatch):
    monkeypatch.setattr(export.FerImageProcessor, "normalize_uint8", lambda self, images: images.float() / 255)
    graph = export.graph_of(load(str(model_path), "cpu"))
    monkeypatch.undo()
    monkeypatch.setattr(export, "graph_of", lambda loaded: graph)
    with pytest.raises(
        export.ExportError, match=r"differ from torch's by \S+, more than 0.0001; model.onnx was not wri"
    ):
        export.main(["--model", str(model_path), "--output", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_pipeline_and_command_line_use_it(model_path, astronaut, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    astronaut.save(photo)
    by_torch, by_onnx = pipeline(model=str(model_path)), pipeline(model=str(model_path), backend="onnx", batch_size=2)
    (expected,) = by_torch(astronaut)
    first, nothing, again = by_onnx([astronaut, Image.new("RGB", (64, 64)), astronaut])
    assert (nothing, again) == ([], first)
    assert first[0]["box"] == expected["box"]
    assert first[0]["scores"] == pytest.approx(expected["scores"], abs=1e-5)
    assert command_line([str(photo), "--json", "--backend", "onnx", "--model", str(model_path / "model.onnx")]) == 0
    (face,) = json.loads(capsys.readouterr().out)["faces"]
    assert face["scores"] == pytest.approx(expected["scores"], abs=1e-5)
    with pytest.raises(ValueError, match=r"has no weights to save; copy its \.onnx file"):
        by_onnx.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_attention_is_refused_in_a_sentence(model_path, astronaut, tmp_path, capsys):
    with pytest.raises(ValueError, match="attention is read inside the network, which only backend='torch' allows"):
        pipeline(model=model_path, backend="onnx")(astronaut, faces="crop", attention=True)
    with pytest.raises(SystemExit, match="2"):
        command_line(["x.jpg", "--backend", "onnx", "--attention", str(tmp_path / "o.png")])
    assert "only --backend torch allows" in capsys.readouterr().err
    with pytest.raises(ValueError, match="backend must be one of 'torch', 'onnx'; 'tensorrt' was given"):
        pipeline(model=model_path, backend="tensorrt")
    with pytest.raises(ValueError, match="backend='onnx' runs on the CPU"):
        pipeline(model=model_path, backend="onnx", device="cuda:0")


def _without_labels(content: bytes) -> bytes:
    graph = onnx.load_from_string(content)
    del graph.metadata_props[:]
    return graph.SerializeToString()


def _with_entry(content: bytes, key: str, value: str) -> bytes:
    graph = onnx.load_from_string(content)
    next(entry for entry in graph.metadata_props if entry.key == key).value = value
    return graph.SerializeToString()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda content: content[: len(content) // 2], "it is truncated or not an ONNX file"),
        (lambda content: b"version https://git-lfs.github.com/spec/v1\n", "only a Git LFS pointer"),
        (_without_labels, "its metadata lacks labels, size, num_channels, face_template, face_margin; export"),
        (
            lambda content: export.with_metadata(
                content, {"labels": ["a"], "size": 48, "num_channels": 1, "face_template": None, "face_margin": 0.2}
            ),
            "contradict its metadata",
        ),
        (lambda content: _with_entry(content, "labels", "[angry, happy]"), "its metadata cannot be read .*; export it"),
        (lambda content: _with_entry(content, "labels", "7"), "its metadata cannot be read .*; export it"),
    ],
)
def test_each_fault_has_its_sentence(damage, sentence, model_path, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(damage((model_path / "model.onnx").read_bytes()))
    with pytest.raises(ValueError, match=f"^The model {file} cannot be loaded: .*{sentence}"):
        OnnxClassifier(file)


def test_the_file_is_found_by_path_folder_and_hub_id(model_path, tiny_model_path, hub):
    from huggingface_hub import HfApi

    assert find_onnx(model_path) == find_onnx(model_path / "model.onnx") == model_path / "model.onnx"
    for name, sentence in (
        (tiny_model_path, "it has no model.onnx; make one with training/export.py"),
        ("/nowhere/model.onnx", "there is no such file"),
        ("/nowhere", "there is no such folder"),
        (tiny_model_path / "config.json", "neither a folder nor an .onnx file"),
        ("user/missing", r"\(404\)|\(401\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            find_onnx(name)
    HfApi().create_repo("user/tiny")
    HfApi().upload_folder(repo_id="user/tiny", folder_path=model_path)
    HfApi().upload_file(
        repo_id="user/tiny", path_in_repo="model.onnx", path_or_fileobj=b"of a pull request", create_pr=True
    )
    assert find_onnx("user/tiny@main").read_bytes() == (model_path / "model.onnx").read_bytes()
    assert find_onnx("user/tiny@refs/pr/1").read_bytes() == b"of a pull request"


def test_the_example_runs_without_torch(model_path, crops, tmp_path):
    crops[0].save(tmp_path / "face.png")
    script = ROOT / "examples" / "onnx_photo.py"
    assert len(script.read_text().splitlines()) <= 20
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, script, model_path / "model.onnx", tmp_path / "face.png"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    printed = dict(line.split(": ") for line in done.stdout.splitlines())
    (expected,) = ExpressionRecognizer.from_pretrained(model_path).classifier.probabilities(crops[:1])
    assert {name: float(score) for name, score in printed.items()} == pytest.approx(
        dict(zip(FER7, expected.tolist(), strict=True)), abs=1e-4
    )
    assert list(printed.values()) == sorted(printed.values(), reverse=True)


def test_the_package_s_own_classifier_needs_no_torch(model_path, crops, tmp_path):
    crops[0].save(tmp_path / "face.png")
    (tmp_path / "use.py").write_text(
        "import sys\nfrom PIL import Image\nfrom fer_hf.onnx import OnnxClassifier\n"
        "print(*OnnxClassifier(sys.argv[1]).probabilities([Image.open(sys.argv[2])])[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, tmp_path / "use.py", model_path / "model.onnx", tmp_path / "face.png"],
        capture_output=True, text=True, check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    (expected,) = ExpressionRecognizer.from_pretrained(model_path).classifier.probabilities(crops[:1])
    assert [float(score) for score in done.stdout.split()] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("speeds_ms", "accuracies", "kept", "reason"),
    [
        ((3.0, 2.0), (0.75, 0.746), True, None),
        ((2.9, 2.0), (0.75, 0.75), False, "it is 1.45 times as fast, and 1.5 is asked for"),
        ((3.0, 1.0), (0.75, 0.744), False, "it loses 0.60 points of accuracy, and 0.5 are allowed"),
    ],
)
def test_int8_is_kept_only_where_it_is_fast_and_right(
    speeds_ms, accuracies, kept, reason, model_path, graph, tiny_data_path, tmp_path, monkeypatch
):
    monkeypatch.setattr(export, "graph_of", lambda loaded: graph)
    monkeypatch.setattr(quantize, "median_ms_per_face", lambda classifiers: speeds_ms)
    found = iter(accuracies)
    monkeypatch.setattr(quantize, "accuracy", lambda classifier, split: next(found))
    command = ["--model", str(model_path), "--output", str(tmp_path), "--int8", "--data", str(tiny_data_path)]
    if kept:
        export.main(command)
    else:
        with pytest.raises(export.ExportError, match=f"model_int8.onnx is not kept: {reason}"):
            export.main(command)
    report = json.loads((tmp_path / "export_report.json").read_text())["int8"]
    assert (report["kept"], report["reason"], report["n"]) == (kept, reason, 70)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["export_report.json", "model.onnx"] + ["model_int8.onnx"] * kept
    )
    if kept:
        again = ["--model", str(model_path), "--output", str(tmp_path)]
        export.main(again)  # the same weights: the 8-bit file and its figures stay
        assert json.loads((tmp_path / "export_report.json").read_text())["int8"] == report
        exported, small = (OnnxClassifier(tmp_path / name) for name in ("model.onnx", "model_int8.onnx"))
        assert small.labels == exported.labels
        graph = onnx.load(tmp_path / "model_int8.onnx").graph
        kinds = {node.op_type for node in graph.node}
        filters = [onnx.numpy_helper.to_array(one) for one in graph.initializer if len(one.dims) == 4]
        # Seven bits: with eight, CPUs without VNNI overflow.
        assert filters
        assert all(one.dtype == np.int8 and np.abs(one).max() in (63, 64) for one in filters)
        assert "QuantizeLinear" in kinds
        loaded = load(str(model_path), "cpu")
        pixels = labelled_rows(loaded, [str(tiny_data_path)], "validation", SourceOptions(), "fer2013")[
            0
        ].images.numpy()
        expected = exported.logits(pixels)
        assert 0 < np.abs(small.logits(pixels) - expected).max() < 0.1 * np.ptp(expected)


def test_accuracy_is_the_share_of_right_rows(model_path, tiny_data_path):
    loaded = load(str(model_path), "cpu")
    split, _ = labelled_rows(loaded, [str(tiny_data_path)], "validation", SourceOptions(), "fer2013")
    classifier = OnnxClassifier(model_path / "model.onnx")
    with torch.inference_mode():
        answers = loaded.model(loaded.processor.normalize_uint8(split.images)).logits.argmax(1)
    assert quantize.accuracy(classifier, split) == (answers == split.labels).double().mean().item()


def test_only_an_export_of_these_weights_is_published(model_path, tmp_path):
    folder = Path(shutil.copytree(model_path, tmp_path / "tiny"))
    config = json.loads((folder / "config.json").read_text())
    push_to_hub._check_exports(folder, config)
    with pytest.raises(ValueError, match=r"model.onnx is no export of the model beside it; run training/export.py"):
        push_to_hub._check_exports(folder, config | {"temperature": 2.0})
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="is no export"):
        push_to_hub._check_exports(folder, config)
    (folder / "model.onnx").unlink()
    push_to_hub._check_exports(folder, config | {"temperature": 2.0})


def test_int8_without_data_is_refused(model_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        export.main(["--model", str(model_path), "--int8"])
    assert "--int8 needs --data" in capsys.readouterr().err


def test_missing_onnxruntime_is_said(model_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="needs onnxruntime, which is not installed; run pip install onnxruntime"):
        OnnxClassifier(model_path / "model.onnx")


def test_the_8_bit_file_of_another_model_goes(model_path, graph, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "graph_of", lambda loaded: graph)
    monkeypatch.setattr(export, "greatest_difference", lambda *_: 0.0)
    folder = Path(shutil.copytree(model_path, tmp_path / "tiny"))
    small = folder / "model_int8.onnx"
    for changes in ({}, {"temperature": 0.02}, {"sha256": "0" * 64}):
        shutil.copy(folder / "model.onnx", small)
        report = json.loads((folder / "export_report.json").read_text())
        recorded = {"file": small.name, "sha256": changes.get("sha256", report["onnx"]["sha256"])}
        (folder / "export_report.json").write_text(json.dumps(report | {"int8": recorded}))
        config = json.loads((folder / "config.json").read_text()) | {"temperature": changes.get("temperature", 0.01)}
        (folder / "config.json").write_text(json.dumps(config))
        export.main(["--model", str(folder)])
        assert small.is_file() == (not changes), changes
        assert ("int8" in json.loads((folder / "export_report.json").read_text())) == (not changes)


def test_an_8_bit_file_stays_until_the_next_one_is_made(model_path, graph, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "graph_of", lambda loaded: graph)
    monkeypatch.setattr(export, "greatest_difference", lambda *_: 0.0)
    folder = Path(shutil.copytree(model_path, tmp_path / "tiny"))
    small, path = folder / "model_int8.onnx", folder / "export_report.json"
    shutil.copy(folder / "model.onnx", small)
    report = json.loads(path.read_text())
    path.write_text(json.dumps(report | {"int8": {"file": small.name, "sha256": report["onnx"]["sha256"]}}))
    with pytest.raises(ValueError, match="no file or folder"):
        export.main(["--model", str(folder), "--int8", "--data", str(tmp_path / "typo")])
    assert small.is_file()
    assert "int8" in json.loads(path.read_text())


def test_half_precision_is_exported_in_full_and_left_as_it_was(model_path, tmp_path):
    loaded = load_model(model_path)
    loaded.model.half().save_pretrained(tmp_path)
    loaded.processor.save_pretrained(tmp_path)
    half = load(str(tmp_path), "cpu")
    found = export.export_onnx(half, tmp_path / "model.onnx")
    assert found["greatest_logit_difference"] <= export.MAX_DIFFERENCE
    assert {tensor.dtype for tensor in half.model.parameters()} == {torch.float16}
