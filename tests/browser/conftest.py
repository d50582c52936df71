"""One server with the fake recognizer and one Chromium for all browser tests; a fresh page for each."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from benchmarks.webcam import camera_flags

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    missing = not Path(CHROMIUM).is_file()
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"there is no Chromium at {CHROMIUM}: run `make browser`"))


@pytest.fixture(scope="package")  # playwright keeps an event loop running: other tests must not meet it
def site(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """The running demo: its address, its scratch folder and its recognizer."""
    from fer_hf.contributions import ContributionStore
    from fer_hf.demo.limits import ScratchFolder
    from fer_hf.demo.page import build_page, launch_options
    from tests.demo_fake import FakeRecognizer, fake_shelf

    tmp_path_factory.getbasetemp()  # before the patch below, which would put it into the scratch folder
    with ScratchFolder() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(scratch.path))
        patch.setattr("tempfile.tempdir", str(scratch.path))
        recognizer = FakeRecognizer()
        store = ContributionStore(tmp_path_factory.mktemp("store"), recognizer.labels)
        page = build_page(fake_shelf(recognizer), store=store)
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
        yield SimpleNamespace(url=url, scratch=scratch.path, recognizer=recognizer, store=store)
        page.close(verbose=False)


@pytest.fixture(scope="package")
def camera_clip(tmp_path_factory) -> Path:
    """What the fake camera plays: a picture of 640×480 whose colour and place change from frame to frame."""
    path = tmp_path_factory.mktemp("camera") / "moving.mjpeg"
    frames = []
    for step in range(30):
        frame = Image.new("RGB", (640, 480), (30 + 7 * step, 90, 220 - 6 * step))
        frame.paste((240, 200, 180), (60 + 10 * step, 140, 260 + 10 * step, 340))
        buffer = io.BytesIO()
        frame.save(buffer, "JPEG", quality=85)
        frames.append(buffer.getvalue())
    path.write_bytes(b"".join(frames))
    return path


@pytest.fixture(scope="package")
def chromium(camera_clip):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=camera_flags(camera_clip))
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, site):
    """A function that opens the demo; at the end no page may have asked another host, or logged an error."""
    contexts, foreign, errors = [], [], []

    def note_request(request):
        if not request.url.startswith((site.url, "data:", "blob:")):
            foreign.append(request.url)

    def note_message(message):
        if message.type == "error":
            errors.append(message.text)

    def open_(viewport=None, dark=False):
        context = chromium.new_context(
            viewport=viewport or DESKTOP, color_scheme="dark" if dark else "light", permissions=["camera"]
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("request", note_request)
        page.on("console", note_message)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(site.url)
        page.locator("#photo .fer-result .fer-box.fer-chosen").first.wait_for()
        return page

    yield open_
    for context in contexts:
        context.close()
    assert foreign == []
    assert errors == []
