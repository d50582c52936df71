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
from training.review_folder import Review, write_accepted

_PATTERN = "data/*/*.parquet"

logger = logging.getLogger(__name__)


def bring_up_to_date(source: str, review: Review) -> None:
    """Delete the copies of contributions that are gone, what was accepted of them too, then copy those that are new.

    What cannot be copied must not keep what was withdrawn. Raises ValueError.
    """
    if (Path(source) / "entries.jsonl").is_file():
        store = ContributionStore(source, ())
        _forget({path_of(key) for key in store.contributions()}, review)
        _copy_store(store, review)
    elif Path(source).exists() or source.count("/") != 1:
        raise ValueError(f"{source} is no store of contributions (a folder with entries.jsonl), nor user/name")
    else:
        _copy_hub(source, review)


def _forget(there: set[str], review: Review) -> None:
    for part in review.folder.rglob(".*.part"):  # of a run that was killed
        part.unlink()
    for file in review.files():
        if file.relative_to(review.contributions).as_posix() not in there:
            file.unlink()
    write_accepted(Review(review.folder))  # which reads the decisions so far; this run may add to them


def _copy_store(store: ContributionStore, review: Review) -> None:
    for key, entries in store.contributions().items():
        file = review.contributions / path_of(key)
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


def _copy_hub(repo_id: str, review: Review) -> None:
    with hub_faults(repo_id):
        api = HfApi()
        commit = api.repo_info(repo_id, repo_type="dataset").sha
        _forget(set(api.list_repo_files(repo_id, repo_type="dataset", revision=commit)), review)
        where = {"repo_type": "dataset", "revision": commit, "local_dir": review.contributions}
        snapshot_download(repo_id, allow_patterns=_PATTERN, **where)


def known_pictures(sources: Sequence[str]) -> dict[str, str]:
    """Source and row id of every picture of some sources, by the hash of its pixels."""
    found: dict[str, str] = {}
    for source in sources:
        for split in load_source(source, classes=max(VOCABULARIES)).values():
            for row in split:
                found.setdefault(pixel_sha256(row["image"]), f"{source} {row['row_id']}")
    return found
