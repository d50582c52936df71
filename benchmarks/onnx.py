"""Time of one face and of 32 together in torch, onnxruntime and onnxruntime with 8 bits, in turns on the same threads.

python -m benchmarks.onnx [--model M] [--repeat N]; run training/export.py first.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import torch

from benchmarks.detection import two_faces
from fer_hf.classifier import Classifier
from fer_hf.hub import ModelError, default_model_path
from fer_hf.onnx import OnnxClassifier, find_onnx
from fer_hf.recognition import ExpressionRecognizer

WARM_UP = 5


def medians_ms(classifiers: dict[str, Classifier], crops: list, repeat: int) -> dict[str, float]:
    """Median milliseconds from crops to probabilities; the classifiers take turns, so other work slows all alike."""
    timings: dict[str, list[float]] = {name: [] for name in classifiers}
    for turn in range(WARM_UP + repeat):
        for name, classifier in classifiers.items():
            start = time.perf_counter()
            classifier.probabilities(crops)
            if turn >= WARM_UP:
                timings[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(own) for name, own in timings.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line for one face and one for 32."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default=str(default_model_path()), help="a model folder with model.onnx in it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=200)
    options = parser.parse_args(arguments)
    try:
        exported = find_onnx(options.model)
    except ModelError as error:
        parser.error(str(error))
    recognizer = ExpressionRecognizer.from_pretrained(options.model)
    crops = [aligned.crop for _, aligned in recognizer.locate(two_faces())[0]][:1]
    small = exported.with_name("model_int8.onnx")
    torch.set_num_threads(options.threads)
    classifiers = {"torch": recognizer.classifier, "onnx": OnnxClassifier(exported, threads=options.threads)}
    if small.is_file():
        classifiers["onnx int8"] = OnnxClassifier(small, threads=options.threads)
    for count, repeat in ((1, options.repeat), (32, max(options.repeat // 8, 1))):
        found = medians_ms(classifiers, crops * count, repeat)
        shown = ", ".join(f"{name} {elapsed:.2f} ms" for name, elapsed in found.items())
        print(f"{options.threads} thread(s), {count:2} face(s): {shown}", flush=True)


if __name__ == "__main__":
    main()
