"""Model files from the Hub into the cache, or one sentence that says why not."""

import hashlib
import re
import time
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, errors, snapshot_download
from huggingface_hub.utils import filter_repo_objects

FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
)
MAX_WAIT_S = 60
"""A 429 that asks for a longer pause than this is told to the caller, not waited out."""

_NO_FOLDER = "no folder of that name is here, and"
_FAULTS = (errors.HTTPError, OSError, RuntimeError, getattr(errors, "XetDownloadError", OSError))


class ModelError(ValueError):
    """A model that cannot be loaded; the message is one sentence that names it, the cause and what to do."""

    def __init__(self, source: str, cause: str):
        super().__init__(f"The model {source} cannot be loaded: {cause}.")


def split_hub_id(name: str, revision: str | None) -> tuple[str, str | None]:
    """``user/name@revision`` as its repository and revision, which may hold slashes (``refs/pr/1``).

    Raises ModelError for what can only be a path, and where ``revision`` is given and the name states another.
    """
    repo_id, at, stated = name.partition("@")
    if name.startswith(("/", ".", "~")) or repo_id.count("/") > 1:
        raise ModelError(name, "there is no such folder; check the path, or give a Hub id such as user/name")
    if at and revision not in (None, stated):
        raise ModelError(name, f"it names a revision, and revision={revision!r} names another; give one of them")
    return repo_id, stated if at else revision


def download_model(
    repo_id: str,
    revision: str | None,
    *,
    with_code: bool = False,
    files: Sequence[str] = FILES,
    max_bytes: int | None = None,
) -> tuple[Path, str]:
    """The folder in the cache with the model's files, all of one commit, and that commit.

    ``files`` are the wanted names or patterns. Without a connection the cached files of that revision answer. Pickled
    weights are never fetched; Python files only ``with_code``. Raises ModelError, also where the Hub says that the
    files are more than ``max_bytes``.
    """
    source = repo_id if revision is None else f"{repo_id}@{revision}"
    patterns = [*files, "*.py"] if with_code else list(files)
    size = None if max_bytes is None else _bytes_on_hub(repo_id, revision, patterns)
    if size is not None and size > max_bytes:
        raise ModelError(
            source, f"its files are {size / 1e9:.2f} GB, and at most {max_bytes / 1e9:.2f} GB are taken here"
        )
    for attempt in range(3):
        try:
            folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns))
            break
        except errors.HFValidationError as error:
            raise ModelError(
                source, "this is neither a folder nor a Hub id; give a path or an id such as user/name"
            ) from error
        except _FAULTS as error:
            response = hub_answer(error)
            if response is None and (cached := _cached(repo_id, revision, patterns)):
                folder = cached
                break
            wait_s = retry_after_s(response)
            if attempt == 2 or wait_s is None or wait_s > MAX_WAIT_S:
                raise ModelError(source, _cause(error, response, wait_s)) from error
            time.sleep(wait_s)
    for file in (*folder.glob("*.safetensors"), *folder.glob("*.onnx")):
        _check_hash(file, source)
    return folder, folder.name


def _bytes_on_hub(repo_id: str, revision: str | None, patterns: list[str]) -> int | None:
    """Bytes of the files that fit the patterns; None where the Hub does not say."""
    try:
        there = HfApi().model_info(repo_id, revision=revision, files_metadata=True).siblings or ()
    except (errors.HFValidationError, *_FAULTS):  # the download meets the same fault, and says what is wrong
        return None
    sizes = [file.size for file in filter_repo_objects(there, allow_patterns=patterns, key=lambda file: file.rfilename)]
    return None if None in sizes else sum(sizes)


def _cached(repo_id: str, revision: str | None, patterns: list[str]) -> Path | None:
    """The complete copy in the cache, which huggingface_hub itself overlooks where a connection breaks off midway."""
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns, local_files_only=True))
    except errors.LocalEntryNotFoundError:
        return None


def hub_answer(error: BaseException | None):
    """The Hub's answer that an exception, or what caused it, carries; None where there was none."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None:
            return response
        error = error.__cause__
    return None


def retry_after_s(response) -> int | None:
    """Seconds that a 429 asks to wait; None for every other answer, or where it names no time."""
    if response is None or response.status_code != 429:
        return None
    stated = response.headers.get("Retry-After", "")
    in_window = re.search(r"\bt=(\d+)", response.headers.get("RateLimit", ""))
    return int(stated) if stated.isdigit() else int(in_window[1]) if in_window else None


def _cause(error: Exception, response, wait_s: int | None) -> str:
    status = None if response is None else response.status_code
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision; check the branch, tag or commit after the @"
    if status == 403 or isinstance(error, errors.GatedRepoError):
        return f"the Hub refuses access ({status}); ask for access on its page and log in with `hf auth login`"
    if status == 401:
        return (
            f"{_NO_FOLDER} the Hub asks for a login (401): it is private or does not exist; try `hf auth login` or "
            "check the name"
        )
    if status == 404:
        return f"{_NO_FOLDER} the Hub has no such repository or file (404); check the name"
    if status == 429:
        pause = "later" if wait_s is None else f"in {wait_s} seconds"
        return f"the Hub gets too many requests from here (429); try again {pause}"
    if status is not None:
        return f"the Hub answers with an error ({status}); try again later"
    if isinstance(error, errors.HTTPError | errors.LocalEntryNotFoundError):
        return (
            f"{_NO_FOLDER} the Hub cannot be reached and the cache holds no complete copy; check the name, or the "
            "connection"
        )
    return "the download broke off before a file was complete; try again"


def _check_hash(file: Path, source: str) -> None:
    """Large files are cached under the SHA-256 that the Hub stated for them: their bytes must have it."""
    if not file.is_symlink():
        return
    blob = file.readlink()
    if not re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != blob.name:
        (file.parent / blob).unlink()  # so that the next try fetches it again
        file.unlink()
        raise ModelError(
            source,
            f"the bytes of {file.name} do not have the hash that the Hub states; they were removed, try again",
        )
