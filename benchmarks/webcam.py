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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.demo import EXAMPLE, start_app

CHROMIUM = "/usr/bin/chromium"
_LAGS_S = [step / 100 for step in range(60)]


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


# Where the portrait begins in the picture that is shown now, and where the box stands now, many times a second.
_SAMPLE = """async (milliseconds) => {
  const video = document.querySelector(".fer-live video"), stage = document.querySelector(".fer-live-stage");
  const canvas = document.createElement("canvas");
  canvas.width = 640; canvas.height = 480;
  const pen = canvas.getContext("2d", { willReadFrequently: true }), samples = [], start = performance.now();
  while (performance.now() - start < milliseconds) {
    await new Promise(requestAnimationFrame);
    pen.drawImage(video, 0, 0, 640, 480);
    const row = pen.getImageData(0, 260, 640, 1).data;
    let x = 0;
    while (x < 640 && Math.abs(row[4 * x] - 88) + Math.abs(row[4 * x + 1] - 98) < 28) x++;
    const box = document.querySelector(".fer-live-box"), frame = stage.getBoundingClientRect();
    if (box) samples.push([(performance.now() - start) / 1000, x,
      (640 * (frame.right - box.getBoundingClientRect().right)) / frame.width]);
  }
  return samples;
}"""


def seen_lag_ms(samples: Sequence[tuple[float, float, float]]) -> float:
    """The delay by which the box's path fits the portrait's best, from (seconds, portrait x, box x)."""
    times, portrait, box = np.array(samples).T
    grid = np.arange(times[0] + 0.6, times[-1], 0.01)
    shifted = {lag: np.interp(grid, times, box) - np.interp(grid - lag, times, portrait) for lag in _LAGS_S}
    return 1000 * min(shifted, key=lambda lag: shifted[lag].std())


def watch(address: str, clip: Path, seconds: int) -> tuple[list[tuple[float, ...]], float]:
    """Frames shown a second, answers a second and milliseconds from picture to answer, each second after a warm-up; and
    the lag of the boxes in milliseconds as an onlooker sees it."""
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
        lag_ms = seen_lag_ms(page.evaluate(_SAMPLE, 8000))
        browser.close()
    return found, lag_ms


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--port", type=int, default=7897)
    options = parser.parse_args(arguments)
    process, _ = start_app(options.port)
    try:
        with tempfile.TemporaryDirectory() as folder:
            clip = write_camera_clip(Path(folder, "camera.mjpeg"))
            counted, seen_ms = watch(f"http://127.0.0.1:{options.port}/", clip, options.seconds)
    finally:
        process.terminate()
        process.wait()
    shown, looks, answered = zip(*counted, strict=True)
    print("| | median | worst second |\n|---|--:|--:|")
    print(f"| frames shown a second | {statistics.median(shown):.0f} | {min(shown):.0f} |")
    print(f"| answers a second | {statistics.median(looks):.1f} | {min(looks):.1f} |")
    print(f"| from picture to answer, ms | {statistics.median(answered):.0f} | {max(answered):.0f} |")
    print(f"\nThe boxes follow the picture as shown by {seen_ms:.0f} ms.")


if __name__ == "__main__":
    main()
