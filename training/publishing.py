"""Files to a repository on the Hub as one commit: compared first, sent whole or not at all, then looked at."""

import contextlib
import difflib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, validate_repo_id

KEPT = (".gitattributes",)
"""Files of a repository that are the Hub's own affair and never removed."""
_TEXT_SUFFIXES = (".md", ".json", ".py", ".yaml", ".txt")
_TEXT_DIFF_BYTES, _TEXT_DIFF_LINES = 200_000, 40


class PublishError(ValueError):
    """Something that keeps files from the Hub; the message is one sentence that names the place and the cause."""


@dataclass(frozen=True)
class Target:
    """A repository and how to write to it: ``kind`` is model, dataset or space."""

    repo_id: str
    kind: str
    private: bool = False
    create_pr: bool = False
    space_sdk: str | None = None

    def __post_init__(self):
        try:
            validate_repo_id(self.repo_id)
        except HFValidationError as fault:
            raise PublishError(f"{self.repo_id!r} is no name on the Hub; give one such as user/name") from fault
        if self.repo_id.count("/") != 1:
            raise PublishError(f"{self.repo_id!r} has no owner; give one such as user/{self.repo_id}")

    @property
    def url(self) -> str:
        return f"{constants.ENDPOINT}/{'' if self.kind == 'model' else self.kind + 's/'}{self.repo_id}"


@dataclass(frozen=True)
class Difference:
    """What a commit would change, against the commit ``parent`` (None: the repository does not exist)."""

    parent: str | None
    files: Mapping[str, Path]  # path in the repository -> local file, of all that should be there
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.changed or self.removed)

    def lines(self) -> list[str]:
        """One line a file, ``+`` new, ``~`` changed, ``-`` removed, and how many stay as they are."""
        said = [f"+ {path} ({_size(self.files[path])})" for path in self.added]
        said += [f"~ {path} ({_size(self.files[path])})" for path in self.changed]
        said += [f"- {path}" for path in self.removed]
        return [*said, f"= {len(self.files) - len(self.added) - len(self.changed)} unchanged"]


@dataclass(frozen=True)
class Published:
    """A commit that holds what was sent, and the page of it or of its pull request."""

    commit: str
    url: str


def compare(api: HfApi, target: Target, files: Mapping[str, Path]) -> Difference:
    """How a repository differs from ``files``, which should be all that is in it. Raises PublishError."""
    with hub_faults(target.repo_id):
        try:
            info = api.repo_info(target.repo_id, repo_type=target.kind)
        except RepositoryNotFoundError:
            return Difference(None, files, tuple(sorted(files)), (), ())
        if target.private and not info.private:
            raise PublishError(
                f"{target.repo_id} exists and is public; make it private on its page, or leave --private"
            )
        remote = _remote_files(api, target, info.sha)
    common = [path for path in sorted(files) if path in remote]
    return Difference(
        parent=info.sha,
        files=files,
        added=tuple(path for path in sorted(files) if path not in remote),
        changed=tuple(path for path in common if not _is_same(files[path], remote[path])),
        removed=tuple(path for path in sorted(remote) if path not in files and path not in KEPT),
    )


def text_changes(api: HfApi, target: Target, difference: Difference) -> list[str]:
    """The lines that change in each changed text file, as ``diff -u`` prints them, the first forty of each."""
    said = []
    for path in difference.changed:
        local = difference.files[path]
        if not path.endswith(_TEXT_SUFFIXES) or local.stat().st_size > _TEXT_DIFF_BYTES:
            continue
        with hub_faults(target.repo_id):
            there = api.hf_hub_download(target.repo_id, path, repo_type=target.kind, revision=difference.parent)
        texts = [Path(file).read_text(encoding="utf-8", errors="replace").splitlines() for file in (there, local)]
        lines = list(difflib.unified_diff(*texts, f"there/{path}", f"here/{path}", n=1, lineterm=""))
        said += lines[:_TEXT_DIFF_LINES]
        if len(lines) > _TEXT_DIFF_LINES:
            said.append(f"... {len(lines) - _TEXT_DIFF_LINES} more lines of {path}")
    return said


def publish(api: HfApi, target: Target, difference: Difference, message: str) -> Published:
    """The commit that brings a repository to what ``difference`` shows, checked file by file.

    The repository is made where it is missing. What was uploaded by a call that broke off is not sent again, and a pull
    request that such a call opened is found again. Raises PublishError, also where the repository is no longer what was
    compared.
    """
    if "README.md" in difference.files:
        check_card(target, difference.files["README.md"].read_text(encoding="utf-8"))
    operations = [CommitOperationAdd(path, difference.files[path]) for path in (*difference.added, *difference.changed)]
    operations += [CommitOperationDelete(path, is_folder=False) for path in difference.removed]
    with hub_faults(target.repo_id):
        if difference.parent is None:
            options = {"space_sdk": target.space_sdk} if target.kind == "space" else {}
            api.create_repo(target.repo_id, repo_type=target.kind, private=target.private, exist_ok=True, **options)
        elif target.create_pr and (opened := _opened_before(api, target, difference, message)):
            return opened
        commit = api.create_commit(
            target.repo_id,
            operations,
            commit_message=message,
            repo_type=target.kind,
            create_pr=target.create_pr,
            parent_commit=difference.parent,
        )
        check_published(api, target, commit.oid, difference.files)
    return Published(commit.oid, commit.pr_url or commit.commit_url)


def _opened_before(api: HfApi, target: Target, difference: Difference, message: str) -> Published | None:
    """The open pull request of that title with exactly these files, if there is one."""
    for request in api.get_repo_discussions(
        target.repo_id, repo_type=target.kind, discussion_type="pull_request", discussion_status="open"
    ):
        if request.title == message:
            branch = f"refs/pr/{request.num}"
            commit = api.repo_info(target.repo_id, repo_type=target.kind, revision=branch).sha
            if not _differing(api, target, commit, difference.files):
                return Published(commit, f"{target.url}/discussions/{request.num}")
    return None


def check_card(target: Target, text: str) -> None:
    """Raises PublishError where the Hub does not accept the metadata of a README.md, before anything is sent."""
    card = {"content": text, "repoType": target.kind}
    with hub_faults(target.repo_id):
        answer = get_session().post(f"{constants.ENDPOINT}/api/validate-yaml", json=card, headers=build_hf_headers())
        if answer.status_code == 400:
            messages = "; ".join(error["message"] for error in answer.json()["errors"])
            raise PublishError(f"README.md: the Hub refuses its metadata: {' '.join(messages.split())}")
        hf_raise_for_status(answer)


def check_published(api: HfApi, target: Target, commit: str, files: Mapping[str, Path]) -> None:
    """Raises PublishError where a commit does not hold exactly ``files``, byte for byte."""
    wrong = _differing(api, target, commit, files)
    if wrong:
        raise PublishError(f"{target.repo_id}@{commit[:8]}: {wrong[0]} is not what was sent; run the command again")


def _differing(api: HfApi, target: Target, commit: str, files: Mapping[str, Path]) -> list[str]:
    remote = _remote_files(api, target, commit)
    wrong = [path for path in files if path not in remote or not _is_same(files[path], remote[path])]
    return wrong + [path for path in remote if path not in files and path not in KEPT]


@contextlib.contextmanager
def hub_faults(repo_id: str) -> Iterator[None]:
    """Turns what goes wrong between here and the Hub into a PublishError of one sentence."""
    try:
        yield
    except PublishError:
        raise
    except OfflineModeIsEnabled as fault:
        raise PublishError(f"{repo_id}: HF_HUB_OFFLINE is set; unset it to reach the Hub") from fault
    except (HTTPError, HfHubHTTPError, OSError, RuntimeError) as fault:
        answer, said = _answer(fault)
        if answer is None and not _is_network(fault):
            raise
        raise PublishError(f"{repo_id}: {_cause(fault, answer, said)}") from fault


def _cause(fault: BaseException, answer: object, said: str) -> str:
    if answer is None:
        return f"the Hub at {constants.ENDPOINT} cannot be reached or broke off; run the command again"
    status = answer.status_code
    if status == 401:
        return "the Hub does not accept the token, or there is none; run `hf auth login` with one that may write"
    if status == 403:
        return f"the Hub does not let this token write there ({said}); use another token or repository, or --create-pr"
    if status in (409, 412):
        return "it has changed since it was compared; run the command again and look at the new difference"
    if status == 429:
        pause = answer.headers.get("Retry-After")
        return (
            f"the Hub gets too many requests from here (429); try again {f'in {pause} seconds' if pause else 'later'}"
        )
    if status >= 500:
        return f"the Hub answers with an error ({status}); run the command again, nothing is uploaded twice"
    return f"the Hub refuses it ({status}): {said}"


def _answer(fault: BaseException | None) -> tuple[object | None, str]:
    """The Hub's answer that an exception, or what caused it, carries, and what the answer says."""
    while fault is not None:
        if getattr(fault, "response", None) is not None:
            said = getattr(fault, "server_message", None) or str(fault)
            return fault.response, " ".join(said.split()).rstrip(".")
        fault = fault.__cause__
    return None, ""


def _is_network(fault: BaseException | None) -> bool:
    while fault is not None:
        if isinstance(fault, HTTPError | ConnectionError | TimeoutError):
            return True
        fault = fault.__cause__
    return False


def _remote_files(api: HfApi, target: Target, revision: str) -> dict[str, RepoFile]:
    tree = api.list_repo_tree(target.repo_id, recursive=True, revision=revision, repo_type=target.kind)
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def _is_same(local: Path, remote: RepoFile) -> bool:
    if local.stat().st_size != remote.size:
        return False
    if remote.lfs is not None:
        with local.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == remote.lfs.sha256
    content = local.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == remote.blob_id


def _size(file: Path) -> str:
    count = file.stat().st_size
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count:,} bytes"
