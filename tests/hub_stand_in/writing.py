"""Routes that upload: repositories, LFS objects, commits."""

import base64
import json
import re

from tests.hub_stand_in import cards
from tests.hub_stand_in.calls import API, PAGE, Call, Reply, as_json, route
from tests.hub_stand_in.store import MAX_REGULAR_BYTES, File, HubError, Repo, is_binary, read_json


@route("POST", "/api/repos/create")
def create_repo(call: Call) -> Reply:
    wanted = read_json(call.body)
    owner, kind = wanted.get("organization") or call.require_writer().name, wanted.get("type") or "model"
    call.require_owner(owner)
    if kind == "space" and wanted.get("sdk") not in cards.SDKS:
        raise HubError(400, f'"sdk" must be one of {cards.SDKS}')
    repo_id = f"{owner}/{wanted['name']}"
    place = {"url": f"{call.base_url}/{_prefix(kind)}{repo_id}", "name": repo_id}
    try:
        call.store.create(kind, repo_id, wanted.get("visibility") == "private", wanted.get("sdk"))
    except HubError as fault:
        return as_json(place | {"error": fault.message}, fault.status)
    return as_json(place)


@route("DELETE", "/api/repos/delete")
def delete_repo(call: Call) -> Reply:
    wanted = read_json(call.body)
    call.groups |= {"kind": wanted.get("type") or "model"}
    call.groups["id"] = f"{wanted.get('organization') or call.require_writer().name}/{wanted['name']}"
    repo = call.repo(write=True)
    call.store.delete(repo.kind, repo.id)
    return as_json({})


@route("PUT", API + "/settings")
def change_settings(call: Call) -> Reply:
    wanted = read_json(call.body)
    private = wanted.get("visibility") == "private" or wanted.get("private", False)
    call.repo(write=True).change_settings(private=private)
    return as_json({"private": private})


@route("POST", API + "/preupload/(?P<revision>[^/]+)")
def preupload(call: Call) -> Reply:
    repo = call.repo(write=not call.flag("create_pr"))
    call.require_writer()
    existing = repo.files(call.groups["revision"])
    attributes = repo.content(existing[".gitattributes"]).read_text() if ".gitattributes" in existing else ""
    suffixes = tuple(line.split()[0].lstrip("*") for line in attributes.splitlines() if "filter=lfs" in line)
    answers = []
    for file in read_json(call.body)["files"]:
        sample = base64.b64decode(file["sample"])
        large = file["path"].endswith(suffixes) or file["size"] > MAX_REGULAR_BYTES or is_binary(sample)
        answer = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        if file["path"] in existing:
            answer["oid"] = existing[file["path"]].etag
        answers.append(answer)
    return as_json({"files": answers})


@route("POST", PAGE + r"\.git/info/lfs/objects/batch")
def lfs_batch(call: Call) -> Reply:
    call.require_writer()
    repo, wanted, objects = call.repo(), read_json(call.body), []
    if wanted.get("operation") != "upload" or wanted.get("hash_algo", "sha256") != "sha256":
        raise HubError(422, "only sha256 uploads are supported")
    for item in wanted["objects"]:
        oid, size = item["oid"], item["size"]
        answer = {"oid": oid, "size": size}
        if not re.fullmatch(r"[0-9a-f]{64}", oid) or size <= 0:
            answer["error"] = {"code": 422, "message": f"invalid oid or size: {oid}, {size}"}
        elif not repo.has_lfs(oid, size):
            place = f"{call.base_url}/lfs/{repo.kind}/{repo.id}/{oid}"
            answer["actions"] = {"upload": {"href": f"{place}?size={size}"}, "verify": {"href": f"{place}/verify"}}
        objects.append(answer)
    return as_json({"transfer": "basic", "objects": objects})


@route("PUT", "/lfs/(?P<kind>[^/]+)/(?P<id>[^/]+/[^/]+)/(?P<oid>[^/]+)")
def lfs_put(call: Call) -> Reply:
    # No token here: as on the Hub, the address handed out by the batch route is the permission.
    repo = call.store.get(call.groups["kind"], call.groups["id"])
    repo.put_lfs(call.groups["oid"], int(call.query["size"][0]), iter(lambda: call.body.read(1 << 20), b""))
    return Reply()


@route("POST", "/lfs/(?P<kind>[^/]+)/(?P<id>[^/]+/[^/]+)/(?P<oid>[^/]+)/verify")
def lfs_verify(call: Call) -> Reply:
    said = read_json(call.body)
    if not call.repo().has_lfs(call.groups["oid"], said["size"]) or said["oid"] != call.groups["oid"]:
        raise HubError(404, f"LFS object {said['oid']} of {said['size']} bytes was not uploaded", "EntryNotFound")
    return as_json({})


@route("POST", API + "/commit/(?P<revision>[^/]+)")
def commit(call: Call) -> Reply:
    as_request = call.flag("create_pr")
    repo, user = call.repo(write=not as_request), call.require_writer()
    try:
        header, *operations = [json.loads(line) for line in call.body if line.strip()]
        head = header["value"]
    except (ValueError, KeyError, TypeError) as fault:
        raise HubError(400, f"Invalid NDJSON: {fault}") from fault
    if header["key"] != "header" or not head.get("summary"):
        raise HubError(400, "The first line must be a header with a summary")
    with repo.lock:
        ref = repo.ref_name(call.groups["revision"])
        if ref is None or ref.startswith("refs/tags/"):
            raise HubError(404, f"Invalid rev id: {call.groups['revision']}", "RevisionNotFound")
        tip = repo.resolve(ref)
        parent = repo.resolve(head["parentCommit"]) if head.get("parentCommit") else tip
        if parent != tip and not as_request:
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = _changed(repo, repo.files(parent), operations)
        title, message, page = (
            head["summary"],
            head.get("description", ""),
            f"{call.base_url}/{_prefix(repo.kind)}{repo.id}",
        )
        answer = {"success": True}
        if as_request:
            num = repo.open_pull_request(ref, parent, title, message, user.name)
            ref, answer["pullRequestUrl"] = f"refs/pr/{num}", f"{page}/discussions/{num}"
        oid = repo.write_commit(ref, parent, files, title, message, user.name)
    return as_json(answer | {"commitOid": oid, "commitUrl": f"{page}/commit/{oid}"})


def _prefix(kind: str) -> str:
    return "" if kind == "model" else f"{kind}s/"


def _changed(repo: Repo, files: dict[str, File], operations: list[dict]) -> dict[str, File]:
    """The tree after the operations of a commit."""
    for operation in operations:
        key, value = operation["key"], operation["value"]
        path = value["path"]
        if key == "deletedFolder":
            kept = {name: file for name, file in files.items() if not name.startswith(path.rstrip("/") + "/")}
            missing, files = len(kept) == len(files), kept
        elif key == "deletedFile":
            missing = files.pop(path, None) is None
        else:
            missing, files[_checked(path)] = False, _added(repo, key, value)
        if missing:
            raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
    return files


def _added(repo: Repo, key: str, value: dict) -> File:
    if key == "lfsFile":
        return repo.lfs_file(value["oid"], value.get("size"), value["path"])
    if key != "file":
        raise HubError(400, f"Unknown operation {key}")
    content = base64.b64decode(value["content"]) if value.get("encoding") == "base64" else value["content"].encode()
    if value["path"] == "README.md":
        errors, _ = cards.validate(content.decode(), repo.kind)
        if errors:
            raise HubError(400, f"Invalid metadata in README.md: {'; '.join(errors)}")
    return repo.put_blob(content)


def _checked(path: str) -> str:
    if not path or path.startswith("/") or any(part in ("", ".", "..", ".git") for part in path.split("/")):
        raise HubError(400, f"Invalid path: {path}")
    return path
