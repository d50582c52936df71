"""The card of a data set: metadata the Hub understands, and text whose every figure is counted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, DatasetCardData

from fer_hf.data.sources_store import SourceReport
from training.dataset_rows import CONFLICT, Chosen

TEMPLATE = Path(__file__).with_name("dataset_card_template.md")
TAGS = ("facial-expression-recognition", "perceived-expression", "faces")
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_BLANKS = ("", "todo", "tbd", "none", "n/a", "na", "-", "?", "...", "…", "unknown", "more information needed")
_CONSENT_CHARACTERS = 20


@dataclass(frozen=True)
class CardFields:
    """What only a person knows about a data set; ``licence`` and ``consent`` must be filled."""

    licence: str
    consent: str
    title: str
    description: str = ""

    def __post_init__(self):
        if self.licence.strip().lower() in _BLANKS:
            raise ValueError(
                f"--license is {self.licence!r}; pictures of people need one that lets others use them, as the Hub "
                "writes it, e.g. cc-by-4.0 (or other, and say which in --description)"
            )
        if self.consent.strip().lower() in _BLANKS or len(self.consent.strip()) < _CONSENT_CHARACTERS:
            raise ValueError(
                f"--consent is {self.consent!r}; say in a sentence how the people shown agreed to be published, or why "
                "none is needed"
            )


def render_card(
    repo_id: str,
    fields: CardFields,
    chosen: Chosen,
    reports: Sequence[SourceReport],
    num_bytes: Mapping[str, int],
    checks: Sequence[str],
    shares: Mapping[str, float],
) -> str:
    """README.md: metadata and text. ``num_bytes`` is of each split's files, ``checks`` what the audit found."""
    splits = chosen.splits
    features = splits["train"].features
    card = DatasetCard.from_template(
        card_data=_metadata(fields, splits, num_bytes),
        template_path=str(TEMPLATE),
        repo_id=repo_id,
        title=fields.title,
        licence=fields.licence,
        consent=fields.consent.strip(),
        description=fields.description.strip(),
        classes=features["label"].names,
        counts=_counts_table(splits),
        has_subjects="subject" in features,
        has_votes="votes" in features,
        processing=_processing(reports, shares, splits),
        checks=[*_left_out(chosen), *checks],
    )
    return f"{str(card).strip()}\n"


def metadata_of(fields: CardFields) -> DatasetCardData:
    """What the Hub is told of a data set before a row of it is read."""
    tasks = ["image-classification"]
    return DatasetCardData(license=fields.licence, pretty_name=fields.title, task_categories=tasks, tags=list(TAGS))


def _metadata(fields: CardFields, splits: datasets.DatasetDict, num_bytes: Mapping[str, int]) -> DatasetCardData:
    rows = sum(len(split) for split in splits.values())
    card = metadata_of(fields)
    card["size_categories"] = [next((name for limit, name in _SIZES if rows < limit), "10M<n<100M")]
    counted = datasets.SplitDict()
    for name, split in splits.items():
        counted.add(datasets.SplitInfo(name, num_bytes[name], len(split)))
    whole = sum(num_bytes.values())
    info = datasets.DatasetInfo(
        features=splits["train"].features, splits=counted, download_size=whole, dataset_size=whole
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(card)
    files = [{"split": name, "path": f"data/{name}-*"} for name in splits]
    card["configs"] = [{"config_name": "default", "data_files": files}]
    return card


def _counts_table(splits: datasets.DatasetDict) -> str:
    names = splits["train"].features["label"].names
    counts = {name: np.bincount(split["label"][:], minlength=len(names)) for name, split in splits.items()}
    lines = [f"| | {' | '.join(counts)} |", f"|---|{'---:|' * len(counts)}"]
    for index, label in enumerate(names):
        lines.append(f"| {label} | {' | '.join(f'{count[index]:,}' for count in counts.values())} |")
    lines.append(f"| **all** | {' | '.join(f'{count.sum():,}' for count in counts.values())} |")
    return "\n".join(lines)


def _processing(
    reports: Sequence[SourceReport], shares: Mapping[str, float], splits: datasets.DatasetDict
) -> list[str]:
    said = [
        "Pictures were turned upright and hold nothing but pixels: places, times, devices, comments, colour profiles, "
        "previews and file names are gone."
    ]
    formats = Counter()
    for report in reports:
        formats.update(report.formats)
        if report.dropped:
            said.append(f"Rows of other classes are not here: {_listed(report.dropped)}.")
        if report.skipped:
            said.append(f"{_rows(len(report.skipped))} could not be read and {_are(len(report.skipped))} not here.")
    if set(formats) != {"pixels"}:
        said.append(f"Pictures came as {_listed(formats)}.")
    if shares:
        cut = ", ".join(f"{name} ({100 * share:g}%)" for name, share in shares.items())
        whole = "whole subjects together" if "subject" in splits["train"].features else "class by class"
        own = "" if len(splits) == len(shares) + 1 else " The other splits are the source's own."
        said.append(f"These splits were cut from train, {whole}: {cut}.{own}")
    return [*said, "The rows of each split are shuffled."]


def _left_out(chosen: Chosen) -> list[str]:
    said = []
    for reason, count in Counter(row.reason for row in chosen.left_out).most_common():
        rows = f"{_rows(count)} {_are(count)} not here, because {reason}"
        # Of a copy, ``of`` is a row id, which may be somebody's file name and stays here.
        labels = Counter(row.of for row in chosen.left_out if row.reason == reason == CONFLICT)
        said.append(f"{rows}: {_listed(labels)}." if labels else f"{rows}.")
    return said


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
