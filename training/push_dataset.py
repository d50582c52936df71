"""Publish pictures as a data set: ``python training/push_dataset.py --source FOLDER --repo-id user/name ...``.

Reads any source that training reads, removes metadata, leaves copies out, splits by subject where subjects are known,
writes parquet shards and a card, shows what would change on the Hub, and sends all as one commit or pull request. Run
the same command again after an interruption: what is done is kept, and nothing is uploaded twice.
"""

import argparse
import hashlib
import json
import logging
import re
import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import datasets
from datasets.utils import tqdm
from huggingface_hub import HfApi, constants

from fer_hf.data.archive import unpack
from fer_hf.data.audit import AuditOptions, audit_splits, write_audit
from fer_hf.data.sources import LoadedSource, SourceOptions, read_source
from fer_hf.data.sources_rows import file_state
from fer_hf.hub import default_model_path
from fer_hf.labels import NUMBERINGS
from training.dataset_card import CardFields, metadata_of, render_card
from training.dataset_rows import MAX_NEAR_ROWS, Chosen, choose_rows
from training.dataset_samples import sample_sheet
from training.dataset_shards import SHARD_BYTES, write_shards
from training.publishing import PublishError, Target, check_card, compare, hub_faults, publish, text_changes

DEFAULT_SPLITS = {"validation": 0.1, "test": 0.1}
_MADE_HERE = re.compile(r"(files|unpacked)-[0-9a-f]{16}")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="class folders, a CSV, parquet, or a zip file with one of them")
    parser.add_argument("--repo-id", required=True, help="where it goes, e.g. user/name")
    parser.add_argument("--license", required=True, help="as the Hub writes it, e.g. cc-by-4.0")
    parser.add_argument("--consent", required=True, help="how the people shown agreed, or why none is needed")
    parser.add_argument("--title", help="default: the name of the repository")
    parser.add_argument("--description", default="", help="a paragraph for the card, in Markdown")
    parser.add_argument("--classes", type=int, default=7, choices=(5, 7, 8))
    parser.add_argument(
        "--numbering", default="auto", choices=("auto", *NUMBERINGS), help="what numbers mean as labels"
    )
    parser.add_argument(
        "--remap",
        nargs="*",
        action="extend",
        default=[],
        metavar="CLASS=CLASS",
        help="e.g. contempt=disgust, other=",
    )
    parser.add_argument(
        "--splits",
        nargs="*",
        action="extend",
        metavar="SPLIT=SHARE",
        help="cut from train where missing: validation=0.1 test=0.1",
    )
    parser.add_argument("--seed", type=int, default=0, help="of splits and order")
    parser.add_argument("--votes", help="fer2013new.csv with FER+ votes")
    parser.add_argument("--subject-pattern", help="its first group in a file's name is the subject")
    parser.add_argument("--max-side", type=int, metavar="PX", help="larger pictures are made smaller")
    parser.add_argument("--max-skipped-share", type=float, default=0.1, help="of rows that cannot be read")
    parser.add_argument("--quick", action="store_true", help="look for no near copies, doubtful labels or faces")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of changing main")
    parser.add_argument("--dry-run", action="store_true", help="do all but the upload, and keep the files to look at")
    parser.add_argument("--work", type=Path, help="folder for unpacked and finished files; default: in HF_HOME")
    parser.add_argument(
        "--shard-mb", type=float, default=SHARD_BYTES / 1e6, help="size of a file (default: %(default)g)"
    )
    return parser.parse_args(argv)


def source_options(arguments: argparse.Namespace) -> SourceOptions:
    """How the source is read; its splits are made later, once copies are gone."""
    remap = {}
    for pair in arguments.remap:
        name, equals, target = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--remap {pair!r} should be CLASS=CLASS, or CLASS= to leave a class out")
        remap[name] = target or None
    options = {"subject_pattern": arguments.subject_pattern} if arguments.subject_pattern else {}
    return SourceOptions(
        votes=arguments.votes,
        classes=arguments.classes,
        numbering=arguments.numbering,
        remap=remap,
        max_side_px=arguments.max_side,
        max_skipped_share=arguments.max_skipped_share,
        **options,
    )


def split_shares(pairs: list[str] | None) -> dict[str, float]:
    """Shares of train by the name of the split that is cut from it."""
    if pairs is None:
        return DEFAULT_SPLITS
    shares = {}
    for pair in pairs:
        name, _, share = pair.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            shares[name] = -1
        if name not in ("validation", "test") or not 0 < shares[name] < 1:
            raise ValueError(f"--splits {pair!r} should be validation=SHARE or test=SHARE with a share between 0 and 1")
    return shares


def open_source(source: str, work: Path) -> str:
    """What ``read_source`` reads: the source itself, or the folder that a zip file was unpacked to."""
    path = Path(source)
    if path.suffix.lower() == ".zip" or (path.is_file() and zipfile.is_zipfile(path)):
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        folder = work / f"unpacked-{hashlib.sha256(file_state(path).encode()).hexdigest()[:16]}"
        if not folder.is_dir():
            unpack(path, folder)
        inner = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        return str(inner[0] if len(inner) == 1 else folder)
    return source


def stage(
    chosen: Chosen, loaded: LoadedSource, fields: CardFields, arguments: argparse.Namespace, work: Path
) -> dict[str, Path]:
    """All files of the repository, by their path in it."""
    key = hashlib.sha256(f"{chosen.key()} {arguments.shard_mb}".encode()).hexdigest()[:16]
    folder = work / f"files-{key}"
    numbers: dict[str, str] = {}

    def rename_subject(subject: str | None) -> str | None:
        return None if subject is None else numbers.setdefault(subject, f"subject-{len(numbers) + 1:04d}")

    for split in chosen.splits.values():
        for subject in split["subject"] if "subject" in split.column_names else ():
            rename_subject(subject)
    shards: dict[str, list[Path]] = {}
    with tqdm(total=sum(map(len, chosen.splits.values())), unit=" rows", desc="Writing parquet") as progress:
        for name, split in chosen.splits.items():
            shards[name] = write_shards(
                split,
                name,
                folder / "data",
                rename_subject=rename_subject,
                shard_bytes=int(arguments.shard_mb * 1e6),
                on_rows=progress.update,
            )
    shares = {name: s for name, s in split_shares(arguments.splits).items() if name not in loaded.splits}
    num_bytes = {name: sum(shard.stat().st_size for shard in of_split) for name, of_split in shards.items()}
    audit = folder / ("audit-quick" if arguments.quick else "audit")
    checks = audit_shards(shards, audit, arguments.repo_id, arguments.quick)
    card = render_card(arguments.repo_id, fields, chosen, loaded.reports, num_bytes, checks, shares)
    (folder / "README.md").write_text(card, encoding="utf-8")
    sample_sheet(chosen.splits["train"], seed=arguments.seed).save(folder / "samples.png")
    beside = {name: folder / name for name in ("README.md", "samples.png")}
    beside |= {name: audit / name for name in ("audit.json", "audit.html")}
    return {f"data/{file.name}": file for of_split in shards.values() for file in of_split} | beside


def audit_shards(shards: Mapping[str, list[Path]], folder: Path, title: str, quick: bool) -> list[str]:
    """What the audit says of the finished files, which alone are published; its page and JSON are in ``folder``."""
    if not (folder / "audit.html").is_file():  # written last
        read = {
            name: datasets.Dataset.from_parquet([str(file) for file in of_split], cache_dir=str(folder / "read"))
            for name, of_split in shards.items()
        }
        published = datasets.DatasetDict(read)
        has_model = (default_model_path() / "config.json").is_file()
        options = AuditOptions(
            near=not quick and sum(map(len, read.values())) <= MAX_NEAR_ROWS,
            label_errors=not quick and has_model,
            model=str(default_model_path()) if has_model else None,
            face_samples=0 if quick else AuditOptions.face_samples,
        )
        found = audit_splits(published, options)
        if "judged_by" in found.get("label_errors", {}):
            found["label_errors"]["judged_by"] = default_model_path().name  # not where it lies on this machine
        write_audit(found, published, title, folder)
        del read, published
        shutil.rmtree(folder / "read")
    found = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    return [finding["text"] for finding in found["findings"]]


def check_readable(target: Target, commit: str, chosen: Chosen) -> None:
    """Raises PublishError where ``datasets`` does not find the same splits and classes at a commit."""
    with hub_faults(target.repo_id):
        for name, split in chosen.splits.items():
            try:
                there = datasets.load_dataset(target.repo_id, revision=commit, split=name, streaming=True)
                first = next(iter(there))
            except datasets.exceptions.DatasetsError as fault:
                said = " ".join(str(fault).split())
                raise PublishError(f"{target.repo_id}@{commit[:8]}: datasets cannot read it: {said}") from fault
            if there.features != split.features or first["label"] != split[0]["label"]:
                raise PublishError(f"{target.repo_id}@{commit[:8]}: split {name} does not read as it was written")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    target = Target(arguments.repo_id, "dataset", arguments.private, arguments.create_pr)
    title = arguments.title or arguments.repo_id.split("/")[1].replace("-", " ").replace("_", " ")
    fields = CardFields(arguments.license, arguments.consent, title, arguments.description)
    options, shares = source_options(arguments), split_shares(arguments.splits)
    if not arguments.dry_run:
        # The Hub's rules and the way to it are looked at before the work, which may take hours.
        check_card(target, f"---\n{metadata_of(fields)}\n---\n")
    work = arguments.work or Path(constants.HF_HOME, "fer_hf_push", arguments.repo_id.replace("/", "--"))
    work.mkdir(parents=True, exist_ok=True)
    loaded = read_source(open_source(arguments.source, work), options)
    chosen = choose_rows(loaded.splits, shares, arguments.seed, near=not arguments.quick)
    files = stage(chosen, loaded, fields, arguments, work)
    for name, split in chosen.splits.items():
        print(f"{name}: {len(split):,} pictures")
    for row in chosen.left_out[:10]:
        print(f"left out: {row.row_id}: {row.reason}{f' ({row.of})' if row.of else ''}")
    if len(chosen.left_out) > 10:
        print(f"left out: {len(chosen.left_out) - 10:,} more")
    if arguments.dry_run:
        print(f"dry run: nothing was sent; look at {files['README.md'].parent}")
        return
    api = HfApi()
    difference = compare(api, target, files)
    print("\n".join([target.url, *difference.lines(), *text_changes(api, target, difference)]))
    if difference.is_empty:
        check_readable(target, difference.parent, chosen)
        print(f"already there, at commit {difference.parent}")
    else:
        published = publish(api, target, difference, f"Publish {sum(map(len, chosen.splits.values())):,} pictures")
        check_readable(target, published.commit, chosen)
        print(f"{published.url}: every file has its hash, and datasets reads it")
    for folder in work.iterdir():  # which may hold other things, where a person has named it
        if _MADE_HERE.fullmatch(folder.name):
            shutil.rmtree(folder)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    try:
        main()
    except ValueError as error:
        sys.exit(f"push_dataset.py: {error}")
