"""Takes the pictures of the demo that the docs show: ``python -m tests.browser.screenshots``.

Starts ``app.py`` with the default model and shows it the two example portraits, on a desktop and a phone, light and
dark. The pictures are reduced to 256 colours, which keeps each below 300 kB.
"""

import argparse
import io
import math
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.demo import start_app
from fer_hf.demo.photo import example_paths
from tests.browser.conftest import CHROMIUM, DESKTOP, PHONE

LAPTOP = {"width": 1280, "height": 1060}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/screenshots"))
    parser.add_argument("--port", type=int, default=7898)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    process, _ = start_app(options.port)
    try:
        with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
            clip = _write_camera_clip(Path(folder, "camera.mjpeg"))
            flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
            flags += ["--no-sandbox", f"--use-file-for-fake-video-capture={clip}"]
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
            _take_all(browser, f"http://127.0.0.1:{options.port}/", options.output)
            browser.close()
    finally:
        process.terminate()
        process.wait()


def _write_camera_clip(path: Path) -> Path:
    """A portrait that moves over a plain background, for the fake camera."""
    face = Image.open(example_paths()[0]).convert("RGB").crop((110, 0, 400, 290)).resize((300, 300))
    frames = []
    for step in range(60):
        turn = 2 * math.pi * step / 60
        frame = Image.new("RGB", (640, 480), (88, 98, 110))
        frame.paste(face, (int(170 + 60 * math.sin(turn)), int(90 + 25 * math.cos(turn))))
        buffer = io.BytesIO()
        frame.save(buffer, "JPEG", quality=90)
        frames.append(buffer.getvalue())
    path.write_bytes(b"".join(frames))
    return path


def _take_all(browser: Browser, url: str, output: Path) -> None:
    astronaut, hopper = example_paths()
    page = _open(browser, url, LAPTOP)
    _save(page, output / "photo.png")
    page.set_input_files("#fer-photo-file", hopper)
    page.locator(".fer-back").wait_for()
    page.wait_for_timeout(500)
    _save(page, output / "photo_answer.png")
    page.get_by_role("tab", name="Webcam").click()
    page.get_by_role("button", name="Start the camera").click()
    page.locator("#webcam .fer-live-box").first.wait_for()
    page.wait_for_timeout(8000)
    _save(page, output / "webcam.png")
    page.get_by_role("button", name="Stop the camera").click()
    page.get_by_role("tab", name="Compare").click()
    page.set_input_files("#fer-compare-file", astronaut)
    page.locator("#compare .fer-cards").wait_for()
    page.wait_for_timeout(500)
    _save(page, output / "compare.png")
    _save(_open(browser, url, DESKTOP, dark=True), output / "photo_dark.png")
    phone = _open(browser, url, PHONE)
    _save(phone, output / "phone.png")
    phone.set_input_files("#fer-photo-file", astronaut)
    phone.locator(".fer-back").wait_for()
    phone.wait_for_timeout(1200)
    _save(phone, output / "phone_answer.png")


def _open(browser: Browser, url: str, viewport: dict, dark: bool = False) -> Page:
    context = browser.new_context(
        viewport=viewport, color_scheme="dark" if dark else "light", permissions=["camera"], device_scale_factor=1
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(url)
    page.locator("#photo .fer-chosen").first.wait_for()
    page.wait_for_timeout(500)
    return page


def _save(page: Page, path: Path) -> None:
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


if __name__ == "__main__":
    main()
