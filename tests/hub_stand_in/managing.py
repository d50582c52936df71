"""Routes around a repository's commits: branches, pull requests, history, LFS objects, a Space's variables."""

from tests.hub_stand_in.calls import API, Call, Reply, as_json, route
from tests.hub_stand_in.store import File, HubError, Repo, now, read_json


@route("POST", API + "/(?P<place>branch|tag)/(?P<name>[^/]+)")
def create_ref(call: Call) -> Reply:
    repo, wanted = call.repo(write=True), read_json(call.body)
    tagging = call.groups["place"] == "tag"
    # A tag's path names what is tagged and its body the tag; a branch's path names the branch.
    name, start = (
        (wanted["tag"], call.groups["name"]) if tagging else (call.groups["name"], wanted.get("startingPoint"))
    )
    if name.startswith("refs/"):
        raise HubError(400, f"Invalid reference for a branch: {name}")
    with repo.lock:
        ref = f"refs/{'tags' if tagging else 'heads'}/{name}"
        if ref in repo.settings["refs"]:
            raise HubError(409, f"Reference already exists: {ref}")
        repo.set_ref(ref, repo.resolve(start or "main"))
    return as_json({})


@route("DELETE", API + "/(?P<place>branch|tag)/(?P<name>[^/]+)")
def delete_ref(call: Call) -> Reply:
    repo = call.repo(write=True)
    ref = f"refs/{'tags' if call.groups['place'] == 'tag' else 'heads'}/{call.groups['name']}"
    if ref == "refs/heads/main":
        raise HubError(403, "Cannot delete the main branch")
    if ref not in repo.settings["refs"]:
        raise HubError(404, f"Invalid rev id: {call.groups['name']}", "RevisionNotFound")
    repo.set_ref(ref, None)
    return as_json({})


@route("POST", API + "/super-squash/(?P<branch>[^/]+)")
def super_squash(call: Call) -> Reply:
    repo, message = call.repo(write=True), read_json(call.body)["message"]
    with repo.lock:
        files = repo.files(call.groups["branch"])
        repo.write_commit(f"refs/heads/{call.groups['branch']}", None, files, message, "", call.user.name)
        repo.drop_unreachable()
    return as_json({})


@route("GET", API + "/lfs-files")
def list_lfs_files(call: Call) -> Reply:
    repo = call.repo(write=True)
    found = {}
    for ref in repo.settings["refs"]:
        for _, commit in repo.history(ref):
            for path, file in commit["files"].items():
                if file["lfs"] and (repo.folder / "lfs" / file["lfs"]).is_file():
                    item = {"fileOid": file["lfs"], "oid": file["lfs"], "filename": path, "size": file["size"]}
                    found[file["lfs"]] = item | {"pushedAt": commit["date"], "ref": ref}
    for path in (repo.folder / "lfs").glob("[!.]*"):
        item = {"fileOid": path.name, "oid": path.name, "filename": path.name, "size": path.stat().st_size}
        found.setdefault(path.name, item | {"pushedAt": now()})
    return call.page(list(found.values()))


@route("POST", API + "/lfs-files/batch")
def delete_lfs_files(call: Call) -> Reply:
    repo, wanted = call.repo(write=True), read_json(call.body)["deletions"]
    with repo.lock:
        for sha256 in wanted["sha"]:
            (repo.folder / "lfs" / sha256).unlink(missing_ok=True)
        if wanted["rewriteHistory"] and call.store.rewrites_history:
            repo.rewrite_without(set(wanted["sha"]))
    return as_json({})


@route("GET", API + "/discussions")
def list_pull_requests(call: Call) -> Reply:
    repo = call.repo()
    requests = [r for r in repo.settings["pull_requests"] if call.query.get("status", [r["status"]])[0] == r["status"]]
    start = int(call.query.get("p", ["0"])[0]) * call.page_size
    page = [_summary(repo, request) for request in requests[start : start + call.page_size]]
    return as_json({"discussions": page, "count": len(requests), "start": start})


@route("GET", API + "/discussions/(?P<num>[0-9]+)")
def pull_request(call: Call) -> Reply:
    repo = call.repo()
    request = _request(repo, call)
    details = {"events": [], "filesWithConflicts": _conflicts(repo, request), "diff": ""}
    return as_json(_summary(repo, request) | details | {"changes": {"base": request["base"]}})


@route("POST", API + "/discussions/(?P<num>[0-9]+)/status")
def change_status(call: Call) -> Reply:
    repo, status = call.repo(write=True), read_json(call.body)["status"]
    repo.change_pull_request(_request(repo, call)["num"], status=status)
    event = {"id": "0", "type": "status-change", "createdAt": now(), "author": {"name": call.user.name}}
    return as_json({"newStatus": event | {"data": {"status": status}}})


@route("POST", API + "/discussions/(?P<num>[0-9]+)/merge")
def merge(call: Call) -> Reply:
    repo = call.repo(write=True)
    with repo.lock:
        request = _request(repo, call)
        if request["status"] != "open" or _conflicts(repo, request):
            raise HubError(409, "This pull request is not open or has conflicts")
        files = {path: file for path, file in (repo.files("main") | _changes(repo, request)).items() if file}
        title = f"{request['title']} (#{request['num']})"
        repo.write_commit("refs/heads/main", repo.resolve("main"), files, title, "", call.user.name)
        repo.change_pull_request(request["num"], status="merged")
    return as_json({})


def _request(repo: Repo, call: Call) -> dict:
    num = int(call.groups["num"])
    found = [request for request in repo.settings["pull_requests"] if request["num"] == num]
    if not found:
        raise HubError(404, f"Discussion {num} not found", "EntryNotFound")
    return found[0]


def _summary(repo: Repo, request: dict) -> dict:
    fields = {"title": request["title"], "num": request["num"], "status": request["status"], "isPullRequest": True}
    named = {"author": {"name": request["author"]}, "repo": {"name": repo.id, "type": repo.kind}}
    return fields | named | {"createdAt": request["created"]}


def _changes(repo: Repo, request: dict) -> dict[str, File | None]:
    """Path -> what a pull request makes of it; None where it deletes."""
    start, tip = repo.files(request["start"]), repo.files(f"refs/pr/{request['num']}")
    return {path: tip.get(path) for path in start | tip if start.get(path) != tip.get(path)}


def _conflicts(repo: Repo, request: dict) -> list[str]:
    """Paths that both the pull request and its base have changed since it was opened."""
    start, main = repo.files(request["start"]), repo.files(request["base"])
    return [path for path in _changes(repo, request) if start.get(path) != main.get(path)]


@route("GET POST DELETE", API + "/variables")
def variables(call: Call) -> Reply:
    repo = call.repo(write=True)
    if call.method == "POST":
        wanted = read_json(call.body)
        value = {"key": wanted["key"], "value": wanted["value"], "updatedAt": now()}
        repo.change_settings(variables=repo.settings["variables"] | {wanted["key"]: value})
    elif call.method == "DELETE":
        gone = read_json(call.body)["key"]
        repo.change_settings(variables={key: one for key, one in repo.settings["variables"].items() if key != gone})
    return as_json(repo.settings["variables"])
