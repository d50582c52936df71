"""Repositories on disk as the Hub keeps them: blobs, LFS objects, commits, branches, pull requests.

One folder a repository: ``repo.json`` (settings and refs), ``commits/<oid>.json`` (the whole tree of each commit),
``blobs/<git sha1>`` (small files) and ``lfs/<sha256>`` (large ones). Every file is
written beside its place and renamed.
"""

import datetime
import hashlib
import json
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

GITATTRIBUTES = "".join(
    f"*.{kind} filter=lfs diff=lfs merge=lfs -text\n"
    for kind in (
        "safetensors",
        "onnx",
        "parquet",
        "bin",
        "pt",
        "zip",
        "arrow",
        "npz",
        "png",
        "jpg",
        "jpeg",
        "webp",
        "heic",
    )
).encode()
MAX_REGULAR_BYTES = 10 * 2**20
_REPO_NAME = re.compile(r"(?!.*(\.\.|--))[A-Za-z0-9_][A-Za-z0-9_.-]{0,94}[A-Za-z0-9_]|[A-Za-z0-9_]")


class HubError(Exception):
    """A refusal as the Hub words it: HTTP status, ``X-Error-Code`` (or None), message and further headers."""

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.headers: dict[str, str] = {}


@dataclass(frozen=True)
class File:
    """One file of a commit: ``oid`` is the git sha1 of the blob (of the pointer, for LFS files), ``lfs`` a sha256."""

    oid: str
    size: int
    lfs: str | None = None

    @property
    def etag(self) -> str:
        return self.lfs or self.oid


class Store:
    """All repositories under one folder; its lock guards every change."""

    def __init__(self, root: Path):
        self.root, self.lock = Path(root), threading.RLock()
        self.rewrites_history = True  # or deletes LFS objects alone, as a Hub that has not come round to it yet

    def create(self, kind: str, repo_id: str, private: bool, sdk: str | None = None) -> "Repo":
        """A new repository with the Hub's first commit (.gitattributes); 409 where it exists."""
        if not all(_REPO_NAME.fullmatch(part) for part in repo_id.split("/")):
            raise HubError(400, f"Invalid repo name: {repo_id}")
        with self.lock:
            folder = self._folder(kind, repo_id)
            if folder.exists():
                raise HubError(409, f"You already created this {kind} repo")
            repo = Repo(folder, kind, repo_id, self.lock)
            settings = {"private": private, "sdk": sdk, "created": now(), "variables": {}}
            settings |= {"refs": {}, "pull_requests": []}
            _write(folder / "repo.json", json.dumps(settings).encode())
            files = {".gitattributes": repo.put_blob(GITATTRIBUTES)}
            repo.write_commit("refs/heads/main", None, files, "initial commit", "", "system")
        return repo

    def get(self, kind: str, repo_id: str) -> "Repo":
        folder = self._folder(kind, repo_id)
        if not (folder / "repo.json").is_file():
            raise HubError(404, "Repository not found", "RepoNotFound")
        return Repo(folder, kind, repo_id, self.lock)

    def delete(self, kind: str, repo_id: str) -> None:
        with self.lock:
            shutil.rmtree(self.get(kind, repo_id).folder)

    def _folder(self, kind: str, repo_id: str) -> Path:
        if any(part in ("", ".", "..") for part in repo_id.split("/")):
            raise HubError(400, f"Invalid repo name: {repo_id}")
        return self.root / f"{kind}s" / repo_id


class Repo:
    """One repository; ``kind`` is model, dataset or space."""

    def __init__(self, folder: Path, kind: str, repo_id: str, lock: threading.RLock):
        self.folder, self.kind, self.id, self.lock = folder, kind, repo_id, lock

    @property
    def settings(self) -> dict:
        return json.loads((self.folder / "repo.json").read_bytes())

    def change_settings(self, **changes: object) -> None:
        with self.lock:
            _write(self.folder / "repo.json", json.dumps(self.settings | changes).encode())

    def set_ref(self, ref: str, oid: str | None) -> None:
        """Points a branch, tag or pull request at a commit; None removes it."""
        with self.lock:
            refs = self.settings["refs"] | {ref: oid}
            self.change_settings(refs={name: at for name, at in refs.items() if at is not None})

    def ref_name(self, revision: str) -> str | None:
        """The full name of a branch, tag or pull request, or None where there is none of that name."""
        names = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((name for name in names if name in self.settings["refs"]), None)

    def resolve(self, revision: str) -> str:
        """The commit that a branch, tag, pull request or (shortened) commit hash names."""
        ref = self.ref_name(revision)
        if ref is not None:
            return self.settings["refs"][ref]
        if re.fullmatch(r"[0-9a-f]{5,40}", revision):
            found = [path.stem for path in (self.folder / "commits").glob(f"{revision}*.json")]
            if len(found) == 1:
                return found[0]
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def commit(self, oid: str) -> dict:
        """``parent``, ``title``, ``message``, ``author``, ``date`` and ``files`` of a commit."""
        return json.loads((self.folder / "commits" / f"{oid}.json").read_bytes())

    def files(self, revision: str) -> dict[str, File]:
        """Path -> file of the commit that ``revision`` names, in order of path."""
        return {path: File(**file) for path, file in sorted(self.commit(self.resolve(revision))["files"].items())}

    def file(self, revision: str, path: str) -> File:
        files = self.files(revision)
        if path not in files:
            raise HubError(404, f"Entry not found: {path}", "EntryNotFound")
        return files[path]

    def history(self, revision: str) -> Iterator[tuple[str, dict]]:
        """Commits with their hashes, newest first."""
        oid = self.resolve(revision)
        while oid is not None:
            commit = self.commit(oid)
            yield oid, commit
            oid = commit["parent"]

    def write_commit(
        self, ref: str, parent: str | None, files: dict[str, File], title: str, message: str, author: str
    ) -> str:
        """The hash of a new commit, to which ``ref`` now points."""
        commit = {"parent": parent, "title": title, "message": message, "author": author, "date": now()}
        oid = self._store_commit(commit | {"files": {path: vars(file) for path, file in files.items()}})
        self.set_ref(ref, oid)
        return oid

    def _store_commit(self, commit: dict) -> str:
        data = json.dumps(commit, sort_keys=True).encode()
        oid = hashlib.sha1(data + secrets.token_bytes(8)).hexdigest()
        _write(self.folder / "commits" / f"{oid}.json", data)
        return oid

    def open_pull_request(self, base: str, parent: str, title: str, message: str, author: str) -> int:
        """The number of a new pull request whose branch ``refs/pr/<number>`` starts at ``parent``."""
        with self.lock:
            requests = self.settings["pull_requests"]
            request = {"num": len(requests) + 1, "title": title, "description": message, "author": author}
            request |= {"base": base, "start": parent, "status": "open", "created": now()}
            self.change_settings(pull_requests=[*requests, request])
            self.set_ref(f"refs/pr/{request['num']}", parent)
        return request["num"]

    def change_pull_request(self, num: int, **changes: object) -> None:
        with self.lock:
            requests = [r | changes if r["num"] == num else r for r in self.settings["pull_requests"]]
            self.change_settings(pull_requests=requests)

    def put_blob(self, content: bytes) -> File:
        """A small file; refused over 10 MiB or where it is not text, which must go by LFS."""
        if len(content) > MAX_REGULAR_BYTES:
            raise HubError(400, "Your push was rejected because it contains files larger than 10 MiB.")
        if is_binary(content):
            raise HubError(
                400, "Your push was rejected because it contains binary files. Please use LFS to store them."
            )
        file = File(git_sha1(content), len(content))
        _write(self.folder / "blobs" / file.oid, content)
        return file

    def lfs_file(self, sha256: str, size: int | None, path: str) -> File:
        """A file whose content was uploaded before; refused where it was not, or with another size."""
        stored = self.folder / "lfs" / sha256
        if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not stored.is_file():
            raise HubError(
                400, f"Your push was rejected because an LFS pointer pointed to a file that does not exist: {path}"
            )
        actual = stored.stat().st_size
        if size is not None and size != actual:
            raise HubError(400, f"Size of LFS object {sha256} is {actual}, not {size}: {path}")
        return File(git_sha1(pointer(sha256, actual)), actual, sha256)

    def has_lfs(self, sha256: str, size: int) -> bool:
        stored = self.folder / "lfs" / sha256
        return stored.is_file() and stored.stat().st_size == size

    def put_lfs(self, sha256: str, size: int, chunks: Iterable[bytes]) -> None:
        """Stores an upload; refused where its hash or size is not what was announced."""
        digest, received = hashlib.sha256(), 0
        (self.folder / "lfs").mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder / "lfs", prefix=".", delete=False) as file:
            for chunk in chunks:
                digest.update(chunk)
                received += len(chunk)
                file.write(chunk)
        if received != size or digest.hexdigest() != sha256:
            Path(file.name).unlink()
            raise HubError(
                400, f"BadDigest: got {received} bytes of {digest.hexdigest()}, announced {size} of {sha256}"
            )
        Path(file.name).rename(self.folder / "lfs" / sha256)

    def content(self, file: File) -> Path:
        path = self.folder / "lfs" / file.lfs if file.lfs else self.folder / "blobs" / file.oid
        if not path.is_file():
            raise HubError(404, "The content of this file was deleted", "EntryNotFound")
        return path

    def rewrite_without(self, lfs: set[str]) -> None:
        """Replaces the history of every ref by one whose commits do not have these LFS objects."""
        with self.lock:
            renamed: dict[str | None, str | None] = {None: None}
            for ref in self.settings["refs"]:
                for oid, commit in reversed(list(self.history(ref))):
                    files = {path: file for path, file in commit["files"].items() if file["lfs"] not in lfs}
                    parent = renamed[commit["parent"]]
                    if oid not in renamed:
                        same = files == commit["files"] and parent == commit["parent"]
                        renamed[oid] = oid if same else self._store_commit(commit | {"files": files, "parent": parent})
                self.set_ref(ref, renamed[self.resolve(ref)])
            requests = [request | {"start": renamed[request["start"]]} for request in self.settings["pull_requests"]]
            self.change_settings(pull_requests=requests)
            self.drop_unreachable()

    def drop_unreachable(self) -> None:
        """Removes commits and blobs that no branch, tag or pull request leads to.

        LFS objects stay, as on the Hub, until they are deleted by name.
        """
        with self.lock:
            reachable = {oid: commit for ref in self.settings["refs"] for oid, commit in self.history(ref)}
            blobs = {file["oid"] for commit in reachable.values() for file in commit["files"].values()}
            for place, used in (("commits", {f"{oid}.json" for oid in reachable}), ("blobs", blobs)):
                for path in (self.folder / place).iterdir():
                    if path.name not in used:
                        path.unlink()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """What git keeps in place of an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def is_binary(content: bytes) -> bool:
    """Whether git would call it binary: a NUL byte near the start."""
    return b"\0" in content[:8000]


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_json(stream: BinaryIO) -> dict:
    """The object in a request's body; 400 where it is none."""
    try:
        value = json.loads(stream.read())
    except ValueError as fault:
        raise HubError(400, f"Invalid JSON: {fault}") from fault
    if not isinstance(value, dict):
        raise HubError(400, "Invalid JSON: expected an object")
    return value


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        file.write(content)
    Path(file.name).rename(path)
