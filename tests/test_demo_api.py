"""The named endpoints over HTTP, with gradio_client and by hand; limits on every route; no trace on the disk."""

import base64
import io
import json
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.demo_fake import fake_shelf


def encode(size=(640, 480), colour=(200, 120, 40), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    from fer_hf.demo.limits import ScratchFolder
    from fer_hf.demo.page import build_page, launch_options

    tmp_path_factory.getbasetemp()  # before the patch below, which would put it into the scratch folder
    with ScratchFolder() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(scratch.path))
        patch.setattr("tempfile.tempdir", str(scratch.path))
        page = build_page(fake_shelf())
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
        yield url, scratch.path
        page.close(verbose=False)


@pytest.fixture(scope="module")
def client(server):
    from gradio_client import Client

    return Client(server[0], verbose=False)


def files_left(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def post(url, body, headers=None):
    """Status and text of a POST; errors are answers too."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def call(url, name, data):
    """The last event of an endpoint called as its documentation shows for curl: its name and its data."""
    status, text = post(f"{url}gradio_api/call/{name}", json.dumps({"data": data}).encode())
    assert status == 200, text
    with urllib.request.urlopen(f"{url}gradio_api/call/{name}/{json.loads(text)['event_id']}", timeout=30) as stream:
        lines = stream.read().decode().strip().splitlines()
    return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))


def test_predict_with_the_client_leaves_no_file(client, server, tmp_path):
    from gradio_client import handle_file

    photo = tmp_path / "two faces.png"
    photo.write_bytes(encode())
    record = client.predict(handle_file(photo), api_name="/predict")
    assert [face["label"] for face in record["faces"]]
    assert len(record["faces"]) == 2
    assert record["model"] == "fake-one"
    assert files_left(server[1]) == []
    other = client.predict(handle_file(photo), "fake-two", api_name="/predict")
    assert other["model"] == "fake-two"
    assert other["faces"][0]["scores"] != record["faces"][0]["scores"]


def test_compare_and_batch_with_the_client(client, server, tmp_path):
    from gradio_client import handle_file

    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(encode())
    bad.write_bytes(b"nope")
    compared = client.predict(handle_file(good), api_name="/compare")
    assert [one["model"] for one in compared["models"]] == ["fake-one", "fake-two"]
    records = client.predict([handle_file(good), handle_file(bad)], api_name="/batch")
    assert [len(record["faces"]) for record in records] == [2, 0]
    assert "convert" in records[1]["error"]
    assert files_left(server[1]) == []


def test_batch_takes_zips_as_large_as_the_page_does(client, tmp_path):
    from gradio_client import handle_file

    large = tmp_path / "photos.zip"
    with zipfile.ZipFile(large, "w") as archive:
        archive.writestr("good.png", encode())
        for number in range(3):
            archive.writestr(f"bad{number}.png", bytes(7_000_000))
    records = client.predict([handle_file(large)], api_name="/batch")
    assert [len(record["faces"]) for record in records] == [2, 0, 0, 0]


def test_endpoints_are_documented(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/predict", "/compare", "/batch"}
    assert [one["parameter_name"] for one in endpoints["/predict"]["parameters"]] == ["photo", "model"]
    with urllib.request.urlopen(f"{client.src}gradio_api/info", timeout=30) as answer:
        info = json.load(answer)["named_endpoints"]
    assert "photo pixels" in info["/predict"]["description"]


def test_predict_with_a_data_url_by_hand(server):
    picture = {"url": "data:image/png;base64," + base64.b64encode(encode()).decode()}
    event, (record,) = call(server[0], "predict", [picture, ""])
    assert event == "complete"
    assert len(record["faces"]) == 2
    assert files_left(server[1]) == []


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ([None, ""], "send a file"),
        ([{"url": "data:image/png;base64,bm9wZQ=="}, ""], "convert it"),
        ([{"url": "data:image/png;base64,!!"}, ""], "base64"),
        ([{"path": "/etc/passwd"}, ""], "send it again"),
        ([{"path": "http://127.0.0.1:9/x.png", "meta": {"_type": "gradio.FileData"}}, ""], "not fetched"),
        ([{"url": "data:image/png;base64," + base64.b64encode(encode()).decode()}, "../etc"], "Hub id"),
    ],
)
def test_faults_come_back_as_one_sentence(server, data, sentence):
    event, content = call(server[0], "predict", data)
    assert event == "error"
    text = json.dumps(content)
    assert sentence in text
    assert "Traceback" not in text
    assert str(Path.cwd()) not in text
    assert "site-packages" not in text


def test_no_route_takes_a_body_over_the_limit(server):
    from fer_hf.demo.limits import REQUEST_BYTES

    for route in (
        "gradio_api/upload",
        "gradio_api/queue/join",
        "gradio_api/call/predict",
        "gradio_api/component_server",
    ):
        status, text = post(server[0] + route, b"", {"Content-Length": str(REQUEST_BYTES + 1)})
        assert status == 413, route
        assert "too large" in text


def test_a_picture_over_the_photo_limit_is_refused_as_data_url_too(server):
    large = "data:image/png;base64," + "A" * 28_000_000
    event, content = call(server[0], "predict", [{"url": large}, ""])
    assert event == "error"
    assert "larger than 20 MB" in json.dumps(content)


def test_page_names_no_other_host(server):
    with urllib.request.urlopen(server[0], timeout=30) as answer:
        page = answer.read().decode()
    assert "fonts.googleapis" not in page
    assert "fonts.gstatic" not in page
    assert "cdnjs" not in page
