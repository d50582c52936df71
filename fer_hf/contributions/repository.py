"""Contributions in a data set repository on the Hub: one parquet file each, under a path that its key decides.

So adding is idempotent: what is there already is passed by, whoever added it and whatever became of the answer.
Every commit names the commit that was looked at as its parent; where the repository has moved on, the Hub refuses it
and the look is repeated.
"""

import contextlib
import functools
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, set_client_factory
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils._http import default_client_factory

from ..download import hub_answer, retry_after_s
from .entries import CONSENT, path_of

TITLE = "Add contributions from the demo"
"""Of commits, and of the pull requests by which this module knows its own."""
CARD = f"""---
configs:
- config_name: default
  data_files:
  - split: unreviewed
    path: data/*/*.parquet
---
# Contributed faces, not reviewed
Cut-out faces that visitors of a demo gave, each with the expression its giver sees in it (`label`) and what the model
had said (`predicted`). Nobody has looked at them yet: do not train on them before a review.

Every file is one contribution, and its name a hash of the id with which its giver can withdraw it; then the file is
deleted here, from the history too. Who has a copy of this data set should fetch it anew before each use.

Givers agreed to this: "{CONSENT}"
"""
TIMEOUT_S = 30.0
"""The longest silence of the Hub; huggingface_hub by itself waits for ever."""
_ATTEMPTS = 5
_MAIN = "main"


class RepositoryFault(ValueError):
    """What keeps contributions from the Hub, or on it, in one sentence.

    ``passing`` says that it may pass by itself, ``retry_after_s`` is the wait that the Hub asked for, and ``sent``
    says that something may have arrived there before.
    """

    def __init__(self, repo_id: str, cause: str, *, passing: bool, retry_after_s: int | None = None):
        super().__init__(f"{repo_id}: {cause}.")
        self.passing, self.retry_after_s, self.sent = passing, retry_after_s, False


@dataclass(frozen=True)
class _Place:
    """A branch or pull request at the commit that was looked at, and the SHA-256 of the files found there by path."""

    ref: str
    commit: str
    found: Mapping[str, str | None]


class ContributionRepo:
    """A data set repository, made (private) when it is first needed; nothing is asked of the Hub before that.

    ``as_pull_requests`` gathers additions in a pull request, a new one whenever there is no open one, instead of
    committing them to main. Raises ValueError for a name that cannot be one.
    """

    def __init__(self, repo_id: str, *, as_pull_requests: bool = False) -> None:
        try:
            validate_repo_id(repo_id)
        except HFValidationError as error:
            raise ValueError(f"{repo_id!r} is no name on the Hub; give one such as user/name") from error
        if repo_id.count("/") != 1:
            raise ValueError(f"{repo_id!r} has no owner; give one such as user/{repo_id}")
        self.id, self.as_pull_requests = repo_id, as_pull_requests
        self._user: str | None = None
        _bound_waits()

    def add(self, files: Mapping[str, bytes]) -> None:
        """Return once each contribution (its file by its key) is there. Raises RepositoryFault."""
        paths = {path_of(key): data for key, data in files.items()}
        sent = False
        try:
            for _ in range(_ATTEMPTS):
                places = self._look(("README.md", *paths), with_requests=self.as_pull_requests)
                there = {path for place in places for path in place.found}
                missing = {path: data for path, data in paths.items() if path not in there}
                if not missing:
                    return
                if "README.md" not in there:
                    missing["README.md"] = CARD.encode()
                sent = True
                additions = [CommitOperationAdd(path, data) for path, data in missing.items()]
                self._commit(places[-1], additions, TITLE, create_pr=self.as_pull_requests and len(places) == 1)
            raise self._too_busy()
        except RepositoryFault as fault:
            fault.sent = sent
            raise

    def remove(self, keys: Mapping[str, str | None]) -> bool:
        """Whether anything was there; returns once no branch, commit or upload has these contributions.

        The value of a key is its file's SHA-256, if known.

        The stored files go first, from all history, and then what the newest commits still name: broken off anywhere,
        it can be repeated, and a commit that is still under way is refused by the Hub, since its files are gone.
        Raises RepositoryFault.
        """
        paths, was_there = [path_of(key) for key in keys], False
        for _ in range(_ATTEMPTS):
            places = self._look(paths, with_requests=True)
            known = {sha256 for place in places for sha256 in place.found.values()} | set(keys.values())
            with self._faults():
                stored = [
                    file
                    for file in self._api.list_lfs_files(self.id, repo_type="dataset")
                    if file.oid in known or file.file_oid in known or file.filename in paths
                ]
                if stored:
                    self._api.permanently_delete_lfs_files(self.id, stored, repo_type="dataset")
            if not stored and not any(place.found for place in places):
                return was_there
            was_there = True
            for place in self._look(paths, with_requests=True):
                if place.found:
                    deletions = [CommitOperationDelete(path, is_folder=False) for path in place.found]
                    self._commit(place, deletions, "Remove what was withdrawn")
        raise self._too_busy()

    def read(self, key: str) -> bytes | None:
        """The file of a contribution, None where it is not there, empty where its removal broke off halfway.

        Raises RepositoryFault.
        """
        for place in self._look([path_of(key)], with_requests=True):
            for path in place.found:
                with self._faults(), tempfile.TemporaryDirectory() as folder:  # no copy stays in a cache
                    where = {"repo_type": "dataset", "revision": place.commit, "local_dir": folder}
                    try:
                        return Path(self._api.hf_hub_download(self.id, path, **where)).read_bytes()
                    except EntryNotFoundError:
                        return b""
        return None

    @property
    def _api(self) -> HfApi:
        return HfApi()  # made anew: a token may be changed while the app runs

    def _look(self, paths: Collection[str], *, with_requests: bool) -> list[_Place]:
        """Main, then our open pull requests, oldest first, with which of ``paths`` each has."""
        with self._faults():
            try:
                return self._places(paths, with_requests)
            except RepositoryNotFoundError:
                # Where it exists and the token may not see it, this passes, and the next line raises again.
                self._api.create_repo(self.id, repo_type="dataset", private=True, exist_ok=True)
                return self._places(paths, with_requests)

    def _places(self, paths: Collection[str], with_requests: bool) -> list[_Place]:
        places = []
        for ref in (_MAIN, *(self._requests() if with_requests else ())):
            commit = self._api.repo_info(self.id, repo_type="dataset", revision=ref).sha
            found = self._api.get_paths_info(self.id, list(paths), repo_type="dataset", revision=commit)
            files = {file.path: file.lfs.sha256 if file.lfs else None for file in found if isinstance(file, RepoFile)}
            places.append(_Place(ref, commit, files))
        return places

    def _requests(self) -> list[str]:
        self._user = self._user or self._api.whoami()["name"]
        requests = self._api.get_repo_discussions(
            self.id, repo_type="dataset", discussion_type="pull_request", discussion_status="open"
        )
        ours = [one.num for one in requests if one.title == TITLE and one.author == self._user]
        return [f"refs/pr/{num}" for num in sorted(ours)]

    def _commit(self, place: _Place, operations: list, message: str, *, create_pr: bool = False) -> None:
        """Make a commit, unless the place has changed since it was looked at."""
        with self._faults():
            try:
                self._api.create_commit(
                    self.id,
                    operations,
                    commit_message=message,
                    repo_type="dataset",
                    revision=place.ref,
                    parent_commit=place.commit,
                    create_pr=create_pr,
                )
            except HfHubHTTPError as error:
                answer = hub_answer(error)
                if answer is None or answer.status_code not in (404, 409, 412):
                    raise

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """Turns what goes wrong between here and the Hub into a RepositoryFault."""
        try:
            yield
        except RepositoryFault:
            raise
        except (HTTPError, HfHubHTTPError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            answer = hub_answer(error)
            wait_s = retry_after_s(answer)
            passing = answer is None or answer.status_code == 429 or answer.status_code >= 500
            cause = _cause(error, answer, wait_s)
            raise RepositoryFault(self.id, cause, passing=passing, retry_after_s=wait_s) from error

    def _too_busy(self) -> RepositoryFault:
        return RepositoryFault(self.id, "the Hub still shows it as it was; try again later", passing=False)


@functools.cache
def _bound_waits() -> None:
    """From now on no request of huggingface_hub in this process waits for ever.

    Many of its functions ask for that by name, and it makes its client anew after some errors, so that neither an
    argument nor a setting of one client would do.
    """

    def bound(request) -> None:
        waits = request.extensions["timeout"]
        request.extensions["timeout"] = {on: TIMEOUT_S if wait_s is None else wait_s for on, wait_s in waits.items()}

    def client():
        made = default_client_factory()
        made.event_hooks["request"].append(bound)
        return made

    set_client_factory(client)


def _cause(error: Exception, answer: object, wait_s: int | None) -> str:
    if answer is None:
        if isinstance(error, HTTPError | OSError | RuntimeError):
            return "the Hub cannot be reached or broke off; check the connection"
        return f"the Hub gave an answer that cannot be read ({type(error).__name__})"
    status = answer.status_code
    if status == 401:
        return "the Hub does not accept the token, or there is none (401); set HF_TOKEN to one that may write"
    if status == 403:
        return "the Hub does not let this token write there (403); use another token or repository"
    if status == 404:
        return "the Hub shows no such data set to this token (404); check the name and the token"
    if status == 429:
        pause = "later" if wait_s is None else f"in {wait_s} seconds"
        return f"the Hub gets too many requests from here (429); it takes them again {pause}"
    if status >= 500:
        return f"the Hub answers with an error ({status}); try again later"
    return f"the Hub refuses it ({status})"
