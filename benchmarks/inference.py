"""Time from a face to its expression, and from a photo to its faces with theirs, with the default model on two threads.

python -m benchmarks.inference [--model M] [--repeat N]
"""

import argparse
import io
import statistics
import subprocess
import sys
from collections.abc import Sequence

import torch

from benchmarks.detection import THREADS, median_ms, two_faces
from fer_hf.hub import default_model_path
from fer_hf.recognition import ExpressionRecognizer

IMPORT_SECONDS = (
    "import time, torch, transformers; t = time.perf_counter(); import fer_hf; print(time.perf_counter() - t)"
)


def import_ms(repeat: int = 5) -> float:
    """The median time of ``import fer_hf`` in a process that has imported torch and transformers."""
    runs = [
        subprocess.run([sys.executable, "-c", IMPORT_SECONDS], capture_output=True, text=True, check=True)
        for _ in range(repeat)
    ]
    return statistics.median(float(run.stdout) for run in runs) * 1000


def measure(recognizer: ExpressionRecognizer, repeat: int) -> list[tuple[str, float, float | None]]:
    """What was timed, the median in milliseconds, and the goal where there is one."""
    photo = two_faces()
    jpeg = io.BytesIO()
    photo.save(jpeg, "JPEG", quality=90)
    found, _ = recognizer.locate(photo)
    crops = [aligned.crop for _, aligned in found]
    assert len(crops) == 2, "the benchmark's photo has two faces"
    pixel_values = recognizer.classifier.pixel_values(crops[:1])
    network, original = recognizer.classifier.network, recognizer.classifier.model

    def run(model: torch.nn.Module) -> None:
        with torch.inference_mode():
            model(pixel_values)

    return [
        ("one face, classification", median_ms(lambda: recognizer.classify(crops[:1]), 10 * repeat), 3.0),
        ("  its network, norms folded", median_ms(lambda: run(network), 10 * repeat), None),
        ("  its network as loaded", median_ms(lambda: run(original), 10 * repeat), None),
        ("one face with its mirror image", median_ms(lambda: recognizer.classify(crops[:1], tta=True), repeat), None),
        ("32 faces together", median_ms(lambda: recognizer.classify(crops * 16), repeat), None),
        ("Grad-CAM and gates of one face", median_ms(lambda: recognizer.attend(crops[:1]), repeat), None),
        ("cropping one face", median_ms(lambda: recognizer.align(photo, found[0][0]), repeat), None),
        ("640×480 JPEG with two faces", median_ms(lambda: recognizer.recognize(jpeg.getvalue()), repeat), 60.0),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table: what, median, goal."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--model", default=str(default_model_path()), help="folder or Hub id (default: the embedded one)"
    )
    parser.add_argument("--repeat", type=int, default=30)
    options = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    recognizer = ExpressionRecognizer.from_pretrained(options.model)
    rows = measure(recognizer, options.repeat)
    rows.append(("import fer_hf after torch and transformers", import_ms(), 300.0))
    print(f"inference, medians on {THREADS} threads")
    for what, median, goal in rows:
        verdict = "" if goal is None else f"   goal ≤ {goal:g} ms: {'met' if median <= goal else 'MISSED'}"
        print(f"{what:44} {median:8.2f} ms{verdict}", flush=True)


if __name__ == "__main__":
    main()
