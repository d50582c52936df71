"""The Webcam tab in Chromium with a fake camera that plays a moving face; ``python -m benchmarks.webcam``.

Prints what the page itself counts while the demo runs beside the browser on the same machine: video frames shown and
answers per second, and how far the boxes lag behind the picture.
"""

import argparse
import io
import math
import re
import statistics
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.demo import EXAMPLE, start_app

CHROMIUM = "/usr/bin/chromium"


def write_camera_clip(path: Path) -> Path:
    """A portrait that moves over a plain background, 640×480, for Chromium's fake camera."""
    face = Image.open(EXAMPLE).convert("RGB").crop((110, 0, 400, 290)).resize((300, 300))
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


def camera_flags(clip: Path) -> list[str]:
    """Arguments for Chromium whose camera plays a clip."""
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    return ["--no-sandbox", *fake, f"--use-file-for-fake-video-capture={clip}"]


def watch(address: str, clip: Path, seconds: int) -> list[tuple[float, float, float]]:
    """Frames shown a second, answers a second and milliseconds of lag, once a second after a warm-up."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=camera_flags(clip))
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(address)
        page.get_by_role("tab", name="Webcam").click()
        page.get_by_role("button", name="Start the camera").click()
        page.locator("#webcam .fer-live-box").first.wait_for()
        page.wait_for_timeout(5000)
        for _ in range(seconds):
            page.wait_for_timeout(1000)
            text = page.locator(".fer-speed").inner_text()
            found.append(tuple(float(number) for number in re.findall(r"[\d.]+", text)[:3]))
        browser.close()
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--port", type=int, default=7897)
    options = parser.parse_args(arguments)
    process, _ = start_app(options.port)
    try:
        with tempfile.TemporaryDirectory() as folder:
            clip = write_camera_clip(Path(folder, "camera.mjpeg"))
            shown, looks, lag = zip(*watch(f"http://127.0.0.1:{options.port}/", clip, options.seconds), strict=True)
    finally:
        process.terminate()
        process.wait()
    print("| | median | worst second |\n|---|--:|--:|")
    print(f"| frames shown a second | {statistics.median(shown):.0f} | {min(shown):.0f} |")
    print(f"| answers a second | {statistics.median(looks):.1f} | {min(looks):.1f} |")
    print(f"| boxes behind, ms | {statistics.median(lag):.0f} | {max(lag):.0f} |")


if __name__ == "__main__":
    main()
