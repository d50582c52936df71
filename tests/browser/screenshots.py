"""Takes the pictures of the demo that the docs show: ``python -m tests.browser.screenshots``.

Starts ``app.py`` with the default model and shows it the two example portraits, on a desktop and a phone, light and
dark. The pictures are reduced to 256 colours, which keeps each below 300 kB.
"""

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.demo import start_app
from benchmarks.webcam import camera_flags, write_camera_clip
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
            clip = write_camera_clip(Path(folder, "camera.mjpeg"))
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=camera_flags(clip))
            _take_all(browser, f"http://127.0.0.1:{options.port}/", options.output)
            browser.close()
    finally:
        process.terminate()
        process.wait()


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
    page.wait_for_timeout(15_000)
    page.get_by_role("button", name="Pause").click()  # taking a picture holds the page up, so the box would lag
    page.wait_for_timeout(1500)
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
