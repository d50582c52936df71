"""Routes that change nothing: who am I, repositories, trees, commits, files."""

import hashlib
import json
import re
from pathlib import Path
from urllib.parse import parse_qs

import yaml

from tests.hub_stand_in import cards
from tests.hub_stand_in.calls import API, PAGE, Call, Reply, as_json, route
from tests.hub_stand_in.store import File, HubError, Repo, pointer, read_json


@route("GET", "/api/whoami-v2")
def whoami(call: Call) -> Reply:
    if call.user is None:
        raise HubError(401, "Invalid username or password.")
    access = {"displayName": "test", "role": call.user.role}
    return as_json({"type": "user", "name": call.user.name, "orgs": [], "auth": {"accessToken": access}})


@route("POST", "/api/validate-yaml")
def validate_yaml(call: Call) -> Reply:
    card = read_json(call.body)
    errors, warnings = cards.validate(card["content"], card.get("repoType", "model"))
    found = {"errors": [{"message": e} for e in errors], "warnings": [{"message": w} for w in warnings]}
    return as_json(found, 400 if errors else 200)


@route("GET", API + "(?:/revision/(?P<revision>[^/]+))?")
def repo_info(call: Call) -> Reply:
    repo = call.repo()
    oid = repo.resolve(call.groups.get("revision", "main"))
    settings, commit, files = repo.settings, repo.commit(oid), repo.files(oid)
    siblings = [{"rfilename": path} for path in files]
    if call.flag("blobs"):
        siblings = [
            entry | {"rfilename": path} | _blob(files[path]) for entry, path in zip(siblings, files, strict=True)
        ]
    info = {"_id": oid[:24], "id": repo.id, "author": repo.id.split("/")[0], "sha": oid, "private": settings["private"]}
    info |= {"gated": False, "disabled": False, "lastModified": commit["date"], "createdAt": settings["created"]}
    card = _card_data(repo, files)
    info |= {"downloads": 0, "likes": 0, "siblings": siblings, "cardData": card, "tags": card.get("tags", [])}
    if repo.kind == "model":
        info |= {"modelId": repo.id, "pipeline_tag": card.get("pipeline_tag"), "library_name": card.get("library_name")}
    if repo.kind == "space":
        info |= {"sdk": settings["sdk"], "models": card.get("models", [])}
    wanted = call.query.get("expand")
    return as_json({key: info[key] for key in info if key in ("id", *wanted)} if wanted else info)


def _blob(file: File) -> dict:
    lfs = (
        {"sha256": file.lfs, "size": file.size, "pointerSize": len(pointer(file.lfs, file.size))} if file.lfs else None
    )
    return {"size": file.size, "blobId": file.oid} | ({"lfs": lfs} if lfs else {})


def _card_data(repo: Repo, files: dict[str, File]) -> dict:
    text = repo.content(files["README.md"]).read_text() if "README.md" in files else ""
    parts = text.split("---\n", 2)
    return yaml.safe_load(parts[1]) or {} if text.startswith("---\n") and len(parts) == 3 else {}


@route("GET", API + "/refs")
def list_refs(call: Call) -> Reply:
    kinds = {"branches": "refs/heads/", "tags": "refs/tags/"}
    if call.flag("include_prs"):
        kinds["pullRequests"] = "refs/pr/"
    refs = call.repo().settings["refs"]
    found = {
        kind: [
            {"name": r.removeprefix(at), "ref": r, "targetCommit": oid} for r, oid in refs.items() if r.startswith(at)
        ]
        for kind, at in kinds.items()
    }
    return as_json(found | {"converts": []})


@route("GET", API + "/commits/(?P<revision>[^/]+)")
def list_commits(call: Call) -> Reply:
    history = [
        {"id": oid, "title": c["title"], "message": c["message"], "date": c["date"], "authors": [{"user": c["author"]}]}
        for oid, c in call.repo().history(call.groups["revision"])
    ]
    return call.page(history)


@route("GET", API + "/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?")
def list_tree(call: Call) -> Reply:
    files = call.repo().files(call.groups["revision"])
    folder = call.groups.get("path", "").strip("/")
    below = [path for path in files if path.startswith(f"{folder}/" if folder else "")]
    if folder and not below:
        raise HubError(404, f"{folder} does not exist on {call.groups['revision']}", "EntryNotFound")
    entries = {}
    for path in below:
        parents = [str(parent) for parent in Path(path).parents if str(parent) not in (".", folder)][::-1]
        for name in [*parents, path]:
            if call.flag("recursive") or str(Path(name).parent) == (folder or "."):
                entries[name] = _entry(name, files.get(name))
    return call.page([entries[name] for name in sorted(entries)])


def _entry(path: str, file: File | None) -> dict:
    if file is None:
        return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}
    entry = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
    if file.lfs:
        entry["lfs"] = {"oid": file.lfs, "size": file.size, "pointerSize": len(pointer(file.lfs, file.size))}
    return entry


@route("POST", API + "/paths-info/(?P<revision>[^/]+)")
def paths_info(call: Call) -> Reply:
    files = call.repo().files(call.groups["revision"])
    raw = call.body.read().decode()
    asked = json.loads(raw)["paths"] if raw.startswith("{") else parse_qs(raw).get("paths", [])
    folders = {str(parent) for path in files for parent in Path(path).parents} - {"."}
    return as_json([_entry(path, files.get(path)) for path in asked if path in files or path in folders])


@route("GET HEAD", PAGE + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(call: Call) -> Reply:
    repo, revision = call.repo(), call.groups["revision"]
    commit = {"X-Repo-Commit": repo.resolve(revision)}
    try:
        file = repo.file(revision, call.groups["path"])
        content = repo.content(file)
    except HubError as fault:
        fault.headers = commit
        raise
    headers = commit | {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if file.lfs:
        headers |= {"X-Linked-ETag": f'"{file.lfs}"', "X-Linked-Size": str(file.size)}
    span = _span(call.headers.get("range"), file.size)
    if span is None:
        return Reply(200, headers=headers, file=content, span=(0, file.size))
    headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{file.size}"
    return Reply(206, headers=headers, file=content, span=span)


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """Start and stop of the range that a header asks for, or None for the whole file."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if not match or not any(match.groups()):
        return None
    first, last = match.groups()
    start, stop = (int(first), min(int(last or size) + 1, size)) if first else (max(size - int(last), 0), size)
    if start >= stop:
        raise HubError(416, f"Range {header} is outside of {size} bytes")
    return start, stop
