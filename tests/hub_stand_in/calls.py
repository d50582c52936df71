"""Requests, replies and who may do what: the parts that every route uses."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote, urlencode

from tests.hub_stand_in.store import HubError, Repo, Store

API = r"/api/(?P<kind>model|dataset|space)s/(?P<id>[^/]+/[^/]+)"
PAGE = r"/(?:(?P<kind>dataset|space)s/)?(?P<id>[^/]+/[^/]+?)"


class User(NamedTuple):
    name: str
    role: str  # "read" or "write"


@dataclass
class Reply:
    """A status with a body in memory, or the bytes ``span`` (start, stop) of a file."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    file: Path | None = None
    span: tuple[int, int] = (0, 0)


@dataclass
class Call:
    """One request: groups of its path (unquoted), its query and who asks."""

    store: Store
    method: str
    user: User | None
    groups: dict[str, str]
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: BinaryIO
    base_url: str
    url: str
    page_size: int

    def flag(self, name: str) -> bool:
        return self.query.get(name, ["0"])[0].lower() in ("1", "true")

    def repo(self, write: bool = False) -> Repo:
        """The repository that the path names; missing and private ones look alike to strangers."""
        kind, repo_id = self.groups.get("kind") or "model", self.groups["id"]
        try:
            repo = self.store.get(kind, repo_id)
            owner = repo_id.split("/")[0]
            if repo.settings["private"] and (self.user is None or self.user.name != owner):
                raise HubError(404, "Repository not found", "RepoNotFound")
        except HubError as fault:
            if fault.code == "RepoNotFound" and self.user is None:
                raise HubError(401, "Invalid username or password.", "RepoNotFound") from fault
            raise
        if write:
            self.require_owner(owner)
        return repo

    def require_writer(self) -> User:
        if self.user is None:
            raise HubError(401, "Invalid username or password.")
        if self.user.role != "write":
            raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
        return self.user

    def require_owner(self, namespace: str) -> User:
        if self.require_writer().name != namespace:
            raise HubError(403, f'You don\'t have the rights to write under the namespace "{namespace}"')
        return self.user

    def page(self, items: list) -> Reply:
        """One page of ``items``, with a Link to the next."""
        start = int(self.query.get("cursor", ["0"])[0])
        limit = min(self.page_size, int(self.query.get("limit", [self.page_size])[0]))
        reply = as_json(items[start : start + limit])
        if start + limit < len(items):
            query = urlencode(self.query | {"cursor": start + limit}, doseq=True)
            reply.headers["Link"] = f'<{self.base_url}{self.url}?{query}>; rel="next"'
        return reply


ROUTES: list[tuple[str, re.Pattern, Callable[[Call], Reply]]] = []


def route(methods: str, pattern: str) -> Callable:
    def register(function: Callable[[Call], Reply]) -> Callable[[Call], Reply]:
        ROUTES.extend((method, re.compile(pattern), function) for method in methods.split())
        return function

    return register


def find(method: str, path: str) -> tuple[Callable[[Call], Reply], dict[str, str]]:
    """The function for a request and the groups of its still quoted path."""
    for known, pattern, function in ROUTES:
        if known == method and (match := pattern.fullmatch(path)):
            return function, {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
    raise HubError(404, f"Sorry, we can't find the page you are looking for: {method} {path}")


def as_json(value: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})
