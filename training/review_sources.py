"""Where a review's contributions come from, and the pictures that they should not repeat."""

import logging
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from fer_hf.contributions import ContributionStore
from fer_hf.contributions.entries import path_of
from fer_hf.data.loaders import pixel_sha256
from fer_hf.data.sources import load_source
from fer_hf.labels import VOCABULARIES
from training.publishing import hub_faults
from training.review_folder import Review

_PATTERN = "data/*/*.parquet"

logger = logging.getLogger(__name__)


def bring_up_to_date(source: str, review: Review) -> None:
    """Copy contributions that are new, and delete the copies of those that are gone. Raises ValueError."""
    if (Path(source) / "entries.jsonl").is_file():
        there = _copy_store(ContributionStore(source, ()), review)
    elif Path(source).exists() or source.count("/") != 1:
        raise ValueError(f"{source} is no store of contributions (a folder with entries.jsonl), nor user/name")
    else:
        there = _copy_hub(source, review)
    for file in review.files():
        if file.relative_to(review.contributions).as_posix() not in there:
            file.unlink()


def _copy_store(store: ContributionStore, review: Review) -> set[str]:
    there = set()
    for key, entries in store.contributions().items():
        file = review.contributions / path_of(key)
        there.add(path_of(key))
        if not file.exists():
            try:
                data = store.parquet(entries)
            except OSError as fault:  # withdrawn this moment, or lost: the others must not wait for it
                logger.warning("A contribution is passed by: %s", fault)
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f".{file.name}.part")
            part.write_bytes(data)
            part.rename(file)
    return there


def _copy_hub(repo_id: str, review: Review) -> set[str]:
    with hub_faults(repo_id):
        api = HfApi()
        commit = api.repo_info(repo_id, repo_type="dataset").sha
        there = set(api.list_repo_files(repo_id, repo_type="dataset", revision=commit))
        where = {"repo_type": "dataset", "revision": commit, "local_dir": review.contributions}
        snapshot_download(repo_id, allow_patterns=_PATTERN, **where)
    return there


def known_pictures(sources: Sequence[str]) -> dict[str, str]:
    """Source and row id of every picture of some sources, by the hash of its pixels."""
    found: dict[str, str] = {}
    for source in sources:
        for split in load_source(source, classes=max(VOCABULARIES)).values():
            for row in split:
                found.setdefault(pixel_sha256(row["image"]), f"{source} {row['row_id']}")
    return found
