"""What the public may ask of the server: body size, the line, models in memory, and traces on the disk."""

import asyncio
import gc
import os
import tempfile
import threading
import weakref
from pathlib import Path

import gradio as gr
import pytest

from fer_hf.demo import uploads
from fer_hf.demo.desk import Desk
from fer_hf.demo.limits import UNSWEPT, BodyLimit, Line, Refused, ScratchFolder
from fer_hf.demo.shelf import Shelf
from fer_hf.demo.uploads import PhotoData, PhotoInput, decode_data_url, take_file
from tests.demo_fake import FakeRecognizer


def call_with_body(chunks, headers=(), max_bytes=100, swallow=False):
    """Status and number of bytes that a small app behind the limit saw."""
    sent, seen = [], []

    async def app(scope, receive, send):
        more = True
        try:
            while more:
                message = await receive()
                seen.append(len(message["body"]))
                more = message["more_body"]
        except Exception:
            if not swallow:
                raise
        await send({"type": "http.response.start", "status": 400 if swallow else 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    parts = [{"type": "http.request", "body": c, "more_body": i < len(chunks) - 1} for i, c in enumerate(chunks)]

    async def receive():
        return parts.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": list(headers)}
    asyncio.run(BodyLimit(app, max_bytes)(scope, receive, send))
    return [message["status"] for message in sent if "status" in message], sum(seen)


def test_a_body_within_the_limit_passes():
    assert call_with_body([b"x" * 60, b"x" * 40]) == ([200], 100)


def test_a_declared_length_over_the_limit_is_refused_unread():
    assert call_with_body([b"x"], [(b"content-length", b"101")]) == ([413], 0)
    assert call_with_body([b"x"], [(b"content-length", b"-1")]) == ([413], 0)


@pytest.mark.parametrize("swallow", [False, True])
def test_a_body_without_length_is_counted_and_refused_once(swallow):
    assert call_with_body([b"x" * 60, b"x" * 60], swallow=swallow) == ([413], 60)


def test_line_refuses_who_finds_it_full_and_serves_the_others():
    line = Line(running=1, waiting=1, seconds=10)
    gate = threading.Event()

    async def visit():
        first = asyncio.create_task(line.run(gate.wait, 10))
        second = asyncio.create_task(line.run(lambda: "second"))
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="try again"):
            await line.run(lambda: "third")
        gate.set()
        answers = [await first, await second]
        return [*answers, await line.run(lambda: "fourth")]

    assert asyncio.run(visit()) == [True, "second", "fourth"]


def test_work_that_takes_too_long_is_given_up_with_a_sentence_and_frees_the_line():
    line = Line(running=1, waiting=0, seconds=0.05)
    gate = threading.Event()
    with pytest.raises(Refused, match="longer than"):
        asyncio.run(line.run(gate.wait, 10))
    gate.set()
    for _ in range(100):
        try:
            assert line.run_blocking(lambda: 7) == 7
            break
        except Refused:
            threading.Event().wait(0.02)
    else:
        pytest.fail("the place in line was not given back")


def test_what_was_sent_with_a_request_that_was_given_up_is_let_go():
    class Upload:
        pass

    line, gate = Line(running=1, waiting=3, seconds=0.05), threading.Event()
    upload = Upload()
    seen = weakref.ref(upload)

    async def visit(upload):
        busy = asyncio.create_task(line.run(gate.wait, 10))
        await asyncio.sleep(0.01)
        with pytest.raises(Refused, match="longer than"):
            await line.run(lambda given: given, upload)
        with pytest.raises(Refused):
            await busy

    asyncio.run(visit(upload))
    del upload
    gc.collect()
    assert seen() is None
    gate.set()


def test_errors_of_the_work_reach_the_caller():
    with pytest.raises(ZeroDivisionError):
        Line().run_blocking(lambda: 1 / 0)


def test_scratch_folder_sweeps_what_is_old_and_goes_away():
    with ScratchFolder(max_age_s=60) as scratch:
        old, new = scratch.path / "a" / "old.jpg", scratch.path / "b" / "new.jpg"
        for file in (old, new):
            file.parent.mkdir()
            file.write_bytes(b"x")
        now = new.stat().st_mtime
        os.utime(old, (now - 100, now - 100))
        os.utime(old.parent, (now - 100, now - 100))
        scratch.sweep(now)
        assert not old.exists()
        assert new.exists()
        scratch.sweep(now + 1000)
        scratch.sweep(now + 2000)
        assert list(scratch.path.iterdir()) == []
        own = Path(tempfile.mkdtemp(prefix=UNSWEPT, dir=scratch.path))
        (own / "clip.mp4").write_bytes(b"x")
        scratch.sweep(now + 3000)
        assert (own / "clip.mp4").exists()
    assert not scratch.path.exists()


@pytest.fixture
def upload_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "get_upload_folder", lambda: str(tmp_path / "gradio"))
    (tmp_path / "gradio" / "abc").mkdir(parents=True)
    return tmp_path / "gradio"


def test_uploaded_file_is_read_and_deleted(upload_folder):
    file = upload_folder / "abc" / "me.png"
    file.write_bytes(b"123")
    upload = take_file(str(file), "photos/me.png", max_bytes=10)
    assert (upload.name, upload.data) == ("me.png", b"123")
    assert list(upload_folder.iterdir()) == []


def test_too_large_upload_is_deleted_as_well(upload_folder):
    file = upload_folder / "abc" / "me.png"
    file.write_bytes(b"x" * 11)
    with pytest.raises(gr.Error, match="larger than"):
        take_file(str(file), None, max_bytes=10)
    assert list(upload_folder.iterdir()) == []


def test_files_of_the_server_are_neither_read_nor_deleted(upload_folder, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for path in (str(secret), str(upload_folder / ".." / "secret.txt")):
        with pytest.raises(gr.Error, match="no longer there") as refused:
            take_file(path, None, max_bytes=100)
        assert str(tmp_path) not in str(refused.value)
    assert secret.read_text() == "secret"


def test_data_urls_are_decoded_within_the_limit_and_not_kept_for_the_session():
    data = PhotoData(url="data:image/png;base64,QUJD")
    assert "QUJD" not in str(data.model_dump())
    assert PhotoInput(max_bytes=3, render=False).preprocess(data).data == b"ABC"
    with pytest.raises(gr.Error, match="larger than"):
        PhotoInput(max_bytes=2, render=False).preprocess(data)
    for url in ("data:image/png,ABC", "data:image/png;base64,@@@"):
        with pytest.raises(gr.Error, match="base64"):
            decode_data_url(url)


def test_links_are_not_fetched():
    component = PhotoInput(max_bytes=3, render=False)
    with pytest.raises(gr.Error, match="not fetched"):
        asyncio.run(component.async_move_resource_to_block_cache("http://169.254.169.254/latest"))


@pytest.mark.parametrize(("limit", "kept"), [("KEPT_MODELS", 3), ("KEPT_PARAMETERS", 30)])
def test_models_that_visitors_name_are_kept_within_limits(limit, kept, monkeypatch):
    monkeypatch.setattr(f"fer_hf.demo.shelf.{limit}", kept)
    loads = []

    def load(name):
        loads.append(name)
        return Desk(FakeRecognizer(), name)

    monkeypatch.setattr(Desk, "count_parameters", lambda desk: 10)
    shelf = Shelf(Desk(FakeRecognizer(), "first"), {}, load)
    for name in ("user/a", "user/b", "user/c", "user/a", "user/d", "user/a", "user/b"):
        assert shelf.desk(name).model_name == name
    assert loads == ["user/a", "user/b", "user/c", "user/d", "user/b"]
