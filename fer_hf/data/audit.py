"""What is wrong with a data set before it trains: ``python -m fer_hf.data.audit SOURCE``.

The audit is one JSON object (``audit.json``) and a page with pictures (``audit.html``) made from it. Rows are named by
their row ids. What each part holds is in ``docs/data.md``.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np

from fer_hf.data import audit_checks as checks
from fer_hf.data.audit_findings import findings
from fer_hf.data.audit_page import audit_page
from fer_hf.data.audit_scan import Scan, scan
from fer_hf.data.sources import CK_SUBJECT, SourceOptions, read_source
from fer_hf.data.sources_merge import source_title
from fer_hf.data.sources_store import SourceReport
from fer_hf.data.splits import class_gaps
from fer_hf.hub import ModelError, configured_model, load_model


@dataclass(frozen=True)
class AuditOptions:
    """What is looked for beyond counts, exact copies and conflicts, which cost one decoding of each picture."""

    near: bool = True  # near copies; time grows with the square of the number of pictures
    label_errors: bool = True  # needs a model
    model: str | None = None  # whose probabilities doubtful labels are judged by; None: the default model
    face_samples: int = 100  # pictures in which faces are counted; 0: none
    seed: int = 0  # of samples and folds


def audit_splits(
    source: datasets.DatasetDict,
    options: AuditOptions | None = None,
    reports: Sequence[SourceReport] = (),
    scanned: Scan | None = None,
) -> dict:
    """Everything found in the splits, as JSON takes it.

    ``reports`` are what reading the source said; ``scanned`` is ``scan(source)`` where it has been made already.
    """
    options = options or AuditOptions()
    scanned = scanned or scan(source)
    found = {
        "rows": {name: len(split) for name, split in source.items()},
        "reading": [report.to_json() for report in reports],
        **checks.counts(scanned),
        "class_gaps": class_gaps(source),
        "constant": scanned.row_ids[np.flatnonzero(scanned.is_constant)].tolist(),
        **checks.exact_copies(scanned),
        "subjects": checks.subjects(scanned),
    }
    if options.near:
        found["near_duplicates"] = checks.near_copies(scanned)
    if options.label_errors:
        found["label_errors"] = _label_errors(source, scanned, options)
    if options.face_samples:
        found["faces"] = checks.faces(source, options.face_samples, options.seed)
    return {"findings": findings(found), **found}


def _label_errors(source: datasets.DatasetDict, scanned: Scan, options: AuditOptions) -> dict:
    """The doubtful labels, or why they were not looked for: only a model that was asked for must be there."""
    try:
        loaded = load_model(options.model or configured_model())
    except ModelError as fault:
        if options.model:
            raise
        return {"left_out": f"there is no default model to judge labels by ({fault})"}
    return checks.doubtful_labels(source, scanned, loaded, options.seed)


def quick_findings(source: datasets.DatasetDict, scanned: Scan | None = None) -> list[dict[str, str]]:
    """The findings that one decoding of each picture gives: gaps, constants, exact copies, conflicts, subjects."""
    options = AuditOptions(near=False, label_errors=False, face_samples=0)
    return audit_splits(source, options, scanned=scanned)["findings"]


def write_audit(found: dict, source: datasets.DatasetDict, title: str, folder: str | Path) -> tuple[Path, Path]:
    """The paths of ``audit.json`` and ``audit.html``, written to the folder; each appears whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "audit.json": json.dumps(found, indent=1, ensure_ascii=False) + "\n",
        "audit.html": audit_page(found, source, title),
    }
    for name, text in texts.items():
        handle, staged = tempfile.mkstemp(dir=folder, prefix=f".{name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(staged).chmod(0o644)
        Path(staged).rename(folder / name)
    return folder / "audit.json", folder / "audit.html"


def main(argv: Sequence[str] | None = None) -> int:
    """Audit what the command line names; 0 when it was done, whatever was found, and 2 when it could not be."""
    arguments = _arguments(argv)
    try:
        options = SourceOptions(
            votes=arguments.votes,
            classes=arguments.classes,
            numbering=arguments.numbering,
            remap=dict(_remap_pair(pair) for pair in arguments.remap),
            max_skipped_share=arguments.max_skipped_share,
            subject_pattern=arguments.subject_pattern,
        )
        loaded = read_source(arguments.source, options)
        wanted = AuditOptions(
            near=not arguments.quick,
            label_errors=not arguments.quick,
            model=arguments.model,
            face_samples=0 if arguments.quick else arguments.faces,
        )
        found = audit_splits(loaded.splits, wanted, loaded.reports)
        title = ", ".join(source_title(source) for source in arguments.source)
        paths = write_audit(found, loaded.splits, title, arguments.output)
    except (ValueError, OSError) as fault:
        print(fault, file=sys.stderr)
        return 2
    for finding in found["findings"]:
        print(f"{finding['level']}: {finding['text']}")
    print("\n".join(map(str, paths)))
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fer_hf.data.audit", description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="+", help="folder, CSV, parquet or Hub id; several are merged")
    parser.add_argument("--output", default="audit", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="no near copies, no doubtful labels, no faces")
    parser.add_argument("--model", help="judges doubtful labels; default: the default model")
    parser.add_argument(
        "--faces", type=int, default=100, metavar="N", help="pictures to count faces in (default: %(default)s)"
    )
    parser.add_argument("--votes", metavar="FILE", help="a fer2013new.csv")
    parser.add_argument("--classes", type=int, default=7, help="5, 7 or 8 (default: %(default)s)")
    parser.add_argument("--numbering", default="auto", help="what numbers mean as labels (default: %(default)s)")
    parser.add_argument("--remap", action="append", default=[], metavar="CLASS=CLASS", help="or CLASS= to leave it out")
    parser.add_argument("--subject-pattern", default=CK_SUBJECT, help="its first group in a file's name is the subject")
    parser.add_argument(
        "--max-skipped-share", type=float, default=0.1, help="of unreadable rows (default: %(default)s)"
    )
    return parser.parse_args(argv)


def _remap_pair(text: str) -> tuple[str, str | None]:
    name, equals, target = text.partition("=")
    if not name or not equals:
        raise ValueError(f"--remap {text!r} should be CLASS=CLASS, or CLASS= to leave a class out")
    return name, target or None


if __name__ == "__main__":
    sys.exit(main())
