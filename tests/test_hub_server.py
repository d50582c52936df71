"""The stand-in for the Hub serves huggingface_hub, transformers and datasets, and refuses what the Hub refuses."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd as Add
from huggingface_hub import CommitOperationDelete as Delete
from huggingface_hub import HfApi, ModelCard, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

CARD = b"---\nlicense: mit\ntags: [faces]\npipeline_tag: image-classification\n---\n# Model\n"


@pytest.fixture
def api(hub) -> HfApi:
    api = HfApi()
    api.create_repo("user/model")
    return api


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Seconds that the client waits before it tries again, which the test does not."""
    seconds = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", seconds.append)
    return seconds


def commit(api, *operations, repo="user/model", **options):
    return api.create_commit(repo, list(operations), commit_message="change", **options)


def read(path, **options) -> bytes:
    return Path(hf_hub_download("user/model", path, **options)).read_bytes()


def test_files_come_back_with_their_hashes_and_unchanged_ones_are_not_sent_again(hub, api):
    large = bytes(range(256)) * 1000
    first = commit(api, Add("README.md", CARD), Add("model.safetensors", large))
    assert read("model.safetensors") == large
    assert read("README.md", revision=first.oid[:8]) == CARD

    info = api.model_info("user/model", files_metadata=True)
    assert info.sha == first.oid
    assert (info.tags, info.pipeline_tag, info.card_data.license) == (["faces"], "image-classification", "mit")
    files = {sibling.rfilename: sibling for sibling in info.siblings}
    assert sorted(files) == [".gitattributes", "README.md", "model.safetensors"]
    assert files["model.safetensors"].lfs.sha256 == hashlib.sha256(large).hexdigest()
    assert files["README.md"].blob_id == hashlib.sha1(b"blob %d\0" % len(CARD) + CARD).hexdigest()

    uploads, commits = len(hub.asked("^PUT /lfs/")), len(hub.asked("POST .*/commit/"))
    again = commit(api, Add("README.md", CARD), Add("copy.safetensors", large))
    assert len(hub.asked("^PUT /lfs/")) == uploads == 1
    assert len(hub.asked("POST .*/commit/")) == commits + 1
    assert [c.commit_id for c in api.list_repo_commits("user/model")][:2] == [again.oid, first.oid]


def test_a_range_is_answered_with_its_bytes(hub, api):
    commit(api, Add("model.safetensors", b"0123456789"))
    url = f"{hub.url}/user/model/resolve/main/model.safetensors"
    answers = {r: httpx2.get(url, headers={"Range": r}) for r in ("bytes=2-4", "bytes=7-", "bytes=-2", "bytes=10-")}
    assert {r: (a.status_code, a.content) for r, a in answers.items() if a.status_code != 416} == {
        "bytes=2-4": (206, b"234"),
        "bytes=7-": (206, b"789"),
        "bytes=-2": (206, b"89"),
    }
    assert answers["bytes=2-4"].headers["Content-Range"] == "bytes 2-4/10"
    assert answers["bytes=10-"].status_code == 416


def test_a_tree_is_listed_in_pages_with_folders(hub, api):
    hub.page_size = 3
    commit(api, *(Add(f"data/{name}/a.txt", name.encode()) for name in "abcde"))
    assert [e.path for e in api.list_repo_tree("user/model")] == [".gitattributes", "data"]
    assert [e.path for e in api.list_repo_tree("user/model", "data")] == [f"data/{name}" for name in "abcde"]
    assert len(list(api.list_repo_tree("user/model", recursive=True))) == 12
    assert [e.path for e in api.get_paths_info("user/model", ["data/b/a.txt", "data/c", "none"])] == [
        "data/b/a.txt",
        "data/c",
    ]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("user/model", "none"))
    assert snapshot_download("user/model").endswith(api.model_info("user/model").sha)


def test_what_is_missing_says_what_is_missing(hub, api):
    with pytest.raises(EntryNotFoundError):
        read("none.json")
    with pytest.raises(RevisionNotFoundError):
        read("README.md", revision="none")
    with pytest.raises(RepositoryNotFoundError) as caught:
        api.model_info("user/none")
    assert caught.value.response.status_code == 404
    with pytest.raises(RepositoryNotFoundError) as caught:
        HfApi(token=False).model_info("user/none")
    assert caught.value.response.status_code == 401
    with pytest.raises(RevisionNotFoundError):
        commit(api, Add("a.txt", b"a"), revision="none")
    with pytest.raises(EntryNotFoundError):
        commit(api, Delete("none.txt"))


def test_only_the_owner_writes_and_private_repositories_are_hidden(hub, api):
    with pytest.raises(HfHubHTTPError, match="rights") as caught:
        commit(HfApi(token="hf_other"), Add("a.txt", b"a"))
    assert caught.value.response.status_code == 403
    with pytest.raises(HfHubHTTPError, match="write token"):
        commit(HfApi(token="hf_read"), Add("a.txt", b"a"))
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        HfApi(token="hf_wrong").model_info("user/model")
    with pytest.raises(HfHubHTTPError, match="rights"):
        HfApi(token="hf_other").create_repo("user/theirs")
    with pytest.raises(HfHubHTTPError, match="already"):
        api.create_repo("user/model")
    api.update_repo_settings("user/model", private=True)
    with pytest.raises(RepositoryNotFoundError):
        HfApi(token="hf_other").model_info("user/model")
    assert api.model_info("user/model").private is True


def test_a_stale_parent_is_refused(api):
    first = api.model_info("user/model").sha
    commit(api, Add("a.txt", b"a"), parent_commit=first)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as caught:
        commit(api, Add("a.txt", b"b"), parent_commit=first)
    assert caught.value.response.status_code == 412
    assert read("a.txt") == b"a"


def test_uploads_with_a_wrong_hash_or_size_are_refused(hub, api):
    content = b"weights" * 100
    oid = hashlib.sha256(content).hexdigest()
    address = f"{hub.url}/lfs/model/user/model/{oid}"
    assert httpx2.put(f"{address}?size=700", content=content[::-1]).status_code == 400
    assert httpx2.put(f"{address}?size=699", content=content).status_code == 400
    assert send_commit(hub, lfs_line(oid, 700)) == (400, "an LFS pointer pointed to a file that does not exist")
    assert httpx2.put(f"{address}?size=700", content=content).status_code == 200
    assert send_commit(hub, lfs_line(oid, 699)) == (400, f"Size of LFS object {oid} is 700, not 699")
    assert send_commit(hub, lfs_line(oid, 700)) == (200, "")
    assert read("a.bin") == content


def lfs_line(oid: str, size: int) -> dict:
    return {"key": "lfsFile", "value": {"path": "a.bin", "algo": "sha256", "oid": oid, "size": size}}


def send_commit(hub, *lines: dict) -> tuple[int, str]:
    """Status and, without what it names, the message of a commit sent by hand."""
    header = {"key": "header", "value": {"summary": "by hand"}}
    body = b"\n".join(json.dumps(line).encode() for line in (header, *lines))
    answer = httpx2.post(
        f"{hub.url}/api/models/user/model/commit/main", content=body, headers={"Authorization": f"Bearer {hub.token}"}
    )
    message = answer.json().get("error", "").removeprefix("Your push was rejected because ")
    return answer.status_code, message.split(": a.bin")[0]


def test_content_that_git_refuses_is_refused(hub, api):
    def line(path: str, content: str) -> dict:
        return {"key": "file", "value": {"path": path, "content": content, "encoding": "utf-8"}}

    assert send_commit(hub, line("a.bin", "a\0b"))[1].startswith("it contains binary files")
    assert send_commit(hub, line("a.txt", "a" * (10 * 2**20 + 1)))[1].startswith("it contains files larger than 10 MiB")
    assert send_commit(hub, line("../a.txt", "a")) == (400, "Invalid path: ../a.txt")
    assert send_commit(hub, line("README.md", "---\nlicense: none\n---\n"))[1].startswith(
        "Invalid metadata in README.md"
    )
    assert [c.title for c in api.list_repo_commits("user/model")] == ["initial commit"]


@pytest.mark.parametrize(
    ("repo_type", "metadata", "message"),
    [
        ("model", "license: my-own", '"license" must be one of'),
        ("model", "license: [mit", "YAML Metadata Error"),
        ("model", "model-index: [{name: m, results: [{task: {}}]}]", '"model-index" is not valid'),
        ("dataset", "task_categories: image-classification", '"task_categories" must be an array'),
        ("dataset", "configs: [{data_files: a}]", "config_name is required"),
        ("space", "sdk: gradio\npython_version: 3.12", '"python_version" must be a string'),
        ("space", "title: demo", '"sdk" is required'),
    ],
)
def test_a_card_with_invalid_metadata_is_refused_before_anything_is_sent(hub, api, repo_type, metadata, message):
    api.create_repo("user/it", repo_type=repo_type, space_sdk="gradio" if repo_type == "space" else None)
    card = f"---\n{metadata}\n---\n# Card\n".encode()
    with pytest.raises(ValueError, match="Invalid metadata") as caught:
        commit(api, Add("README.md", card), Add("a.bin", b"\0"), repo="user/it", repo_type=repo_type)
    assert message in str(caught.value)
    assert not hub.asked("^PUT /lfs|POST .*/commit/")


def test_pull_requests_wait_beside_main_until_merged(hub, api):
    main = api.model_info("user/model").sha
    request = commit(HfApi(token="hf_other"), Add("a.txt", b"theirs"), create_pr=True)
    assert (request.pr_num, request.pr_revision) == (1, "refs/pr/1")
    assert read("a.txt", revision="refs/pr/1") == b"theirs"
    assert api.model_info("user/model").sha == main
    commit(api, Add("b.txt", b"b"), revision="refs/pr/1")
    assert [r.name for r in api.list_repo_refs("user/model", include_pull_requests=True).pull_requests] == ["1"]
    assert [(d.num, d.status, d.author) for d in api.get_repo_discussions("user/model")] == [(1, "open", "other")]
    api.merge_pull_request("user/model", 1)
    assert api.get_discussion_details("user/model", 1).status == "merged"
    assert (read("a.txt"), read("b.txt")) == (b"theirs", b"b")

    commit(api, Add("a.txt", b"second"), create_pr=True)
    commit(api, Add("a.txt", b"ours"))
    assert api.get_discussion_details("user/model", 2).conflicting_files == ["a.txt"]
    with pytest.raises(HfHubHTTPError, match="conflicts"):
        api.merge_pull_request("user/model", 2)


def test_branches_and_tags_are_revisions(api):
    first = commit(api, Add("a.txt", b"one")).oid
    api.create_tag("user/model", tag="v1")
    api.create_branch("user/model", branch="next")
    commit(api, Add("a.txt", b"two"), revision="next")
    assert [read("a.txt", revision=r) for r in ("v1", "main", "next")] == [b"one", b"one", b"two"]
    assert api.model_info("user/model", revision="v1").sha == first
    api.delete_branch("user/model", branch="next")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("user/model", revision="next")


def test_withdrawn_content_leaves_history_and_storage(hub, api):
    secret = b"\0secret"
    oid = commit(api, Add("a.png", secret), Add("a.json", b"{}")).oid
    commit(api, Add("b.json", b"{}"), create_pr=True)
    commit(api, Delete("a.png"), Delete("a.json"))
    assert read("a.png", revision=oid) == secret
    api.super_squash_history("user/model")
    files = [file for file in api.list_lfs_files("user/model") if file.file_oid == hashlib.sha256(secret).hexdigest()]
    assert [file.filename for file in files] == ["a.png"]  # the open pull request still leads to it
    api.permanently_delete_lfs_files("user/model", files)
    assert not list((hub.store.root / "models/user/model/lfs").iterdir())
    with pytest.raises(RevisionNotFoundError):
        api.model_info("user/model", revision=oid)
    assert "a.png" not in api.list_repo_files("user/model", revision="refs/pr/1")


def test_faults_are_what_they_are_told_to_be(hub, api, waits):
    commit(api, Add("model.safetensors", b"0123456789" * 10))
    url = f"{hub.url}/user/model/resolve/main/model.safetensors"
    hub.fail("GET .*safetensors", half_body=True)
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(url)
    hub.fail("GET .*safetensors", wrong_body=True)
    assert httpx2.get(url).content == b"\xcf" + b"123456789" + b"0123456789" * 9
    hub.fail("GET .*safetensors", hang_s=30)
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.get(url, timeout=0.2)
    hub.fail("GET .*safetensors", drop=True)
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(url)
    assert httpx2.get(url).status_code == 200

    hub.fail("preupload", status=429, headers={"Retry-After": "7"})
    hub.fail("preupload", status=503)
    commit(api, Add("a.txt", b"a"))
    assert waits == [8.0, 2.0]
    assert [request.status for request in hub.asked("preupload")] == [200, 429, 503, 200]


def test_a_commit_whose_answer_is_lost_is_there(hub, api):
    hub.fail("POST .*/commit/", status=500, after=True)
    with pytest.raises(HfHubHTTPError, match="500"):
        commit(api, Add("a.txt", b"a"))
    hub.fail("POST .*/commit/", drop=True)
    with pytest.raises(httpx2.RemoteProtocolError):
        commit(api, Add("b.txt", b"b"))
    assert api.list_repo_files("user/model") == [".gitattributes", "a.txt"]


def test_state_outlives_the_server(hub, api):
    from tests.hub_server import HubServer

    commit(api, Add("a.txt", b"kept"))
    hub.stop()
    with HubServer(hub.store.root) as again:
        assert HfApi(endpoint=again.url).list_repo_files("user/model") == [".gitattributes", "a.txt"]


def test_spaces_keep_their_variables_and_deleted_repositories_are_gone(api):
    api.create_repo("user/demo", repo_type="space", space_sdk="gradio")
    api.add_space_variable("user/demo", "FER_MODEL", "user/model")
    assert api.get_space_variables("user/demo")["FER_MODEL"].value == "user/model"
    api.delete_repo("user/demo", repo_type="space")
    assert not api.repo_exists("user/demo", repo_type="space")


def test_a_card_is_read_back_and_validated(api):
    commit(api, Add("README.md", CARD))
    card = ModelCard.load("user/model")
    card.validate()
    assert card.data.tags == ["faces"]


LIBRARIES = """
import json, os, sys, time
import datasets
from huggingface_hub import CommitScheduler, HfApi
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
import fer_hf

features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["angry", "happy"]))
rows = {"image": [Image.new("L", (8, 8), i) for i in range(20)], "label": [i % 2 for i in range(20)]}
split = datasets.Dataset.from_dict(rows, features=features)
split.push_to_hub("user/faces", num_shards=2)
loaded = datasets.load_dataset("user/faces", split="train")
streamed = datasets.load_dataset("user/faces", split="train", streaming=True)

model = AutoModelForImageClassification.from_pretrained(sys.argv[1], trust_remote_code=True)
model.push_to_hub("user/model")
AutoImageProcessor.from_pretrained(sys.argv[1], trust_remote_code=True).push_to_hub("user/model")
classify = pipeline("image-classification", "user/model", trust_remote_code=True)
back = AutoModelForImageClassification.from_pretrained("user/model", trust_remote_code=True)

os.makedirs("store")
scheduler = CommitScheduler(repo_id="user/entries", folder_path="store", every=60, repo_type="dataset")
with open("store/entry.json", "w") as file:
    file.write("{}")
scheduler.push_to_hub()
scheduler.stop()
print(json.dumps({
    "loaded": [loaded[i]["image"].getpixel((0, 0)) for i in (0, 19)],
    "names": loaded.features["label"].names,
    "streamed": [row["label"] for row in streamed],
    "labels": len(classify(Image.new("RGB", (60, 60)), top_k=7)),
    "same": all(bool((a == b).all()) for a, b in zip(model.parameters(), back.parameters())),
    "entries": HfApi().list_repo_files("user/entries", repo_type="dataset"),
}))
"""


def test_transformers_and_datasets_take_it_for_the_hub(hub, tiny_model_path, tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", LIBRARIES, str(tiny_model_path)],
        env=os.environ | hub.environment(tmp_path / "home"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout.splitlines()[-1]) == {
        "loaded": [0, 19],
        "names": ["angry", "happy"],
        "streamed": [0, 1] * 10,
        "labels": 7,
        "same": True,
        "entries": [".gitattributes", "entry.json"],
    }


def test_a_client_killed_in_an_upload_leaves_nothing(hub, tmp_path):
    script = "from huggingface_hub import HfApi; a = HfApi(); a.create_repo('user/m'); "
    script += "a.upload_file(path_or_fileobj=b'\\0' * 9, path_in_repo='a.bin', repo_id='user/m')"
    child = None

    def kill() -> None:
        os.kill(child.pid, signal.SIGKILL)

    hub.fail("^PUT /lfs/", call=kill)
    environment = os.environ | hub.environment(tmp_path / "home")
    child = subprocess.Popen([sys.executable, "-c", script], env=environment)
    assert child.wait() == -signal.SIGKILL
    assert not hub.asked("POST .*/commit/")
    assert HfApi().list_repo_files("user/m") == [".gitattributes"]
