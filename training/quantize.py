"""Static 8-bit quantisation of an exported model with onnxruntime, kept only where it pays.

Weights are int8 with a scale for each output channel, activations uint8 with ranges from pictures of the train split
(Jacob et al., arXiv 1712.05877). Only convolutions are quantised: the small layers of gates and classes cost no time
and lose most.
"""

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from fer_hf.data.loaders import ArraySplit
from fer_hf.onnx import OnnxClassifier
from training.export import publish, with_metadata
from training.scoring import Loaded, labelled_rows, source_options

MAX_LOSS_POINTS = 0.5
"""Percentage points of accuracy that int8 may lose."""
MIN_SPEEDUP = 1.5
THREADS = 1
_BATCH = 64
_WARM_UP, _TIMED = 20, 200


def add_int8(loaded: Loaded, exported: Path, path: Path, arguments: argparse.Namespace) -> dict:
    """The figures of ``exported`` and its quantised form, which is written to ``path`` where they allow it."""
    options = source_options(arguments, len(loaded.class_names))
    train, validation = (
        labelled_rows(loaded, arguments.data, split, options, arguments.labels)[0] for split in ("train", "validation")
    )
    part = path.with_name(f".{path.name}.part")
    try:
        quantize_file(exported, part, calibration_rows(train, arguments.calibration_rows))
        classifiers = [OnnxClassifier(file, threads=THREADS) for file in (exported, part)]
        report = compare(*classifiers, validation) | {
            "labels": arguments.labels,
            "calibration_rows": min(arguments.calibration_rows, len(train)),
            "data_sha256": validation.sha256(),
            "file": path.name,
            "bytes": part.stat().st_size,
            "sha256": hashlib.sha256(part.read_bytes()).hexdigest(),
        }
        if report["kept"]:
            publish(part, path)
    finally:
        part.unlink(missing_ok=True)
    return report


def calibration_rows(train: ArraySplit, count: int) -> np.ndarray:
    """Pictures (N, C, H, W) uint8 spread evenly over a split."""
    chosen = np.linspace(0, len(train) - 1, min(count, len(train))).round().astype(int)
    return train.images[chosen].numpy()


def quantize_file(exported: Path, path: Path, pixels: np.ndarray) -> None:
    """Write the quantised form of an exported file, with its metadata; ``pixels`` (N, C, H, W) uint8 set the ranges."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(np.array_split(pixels, -(-len(pixels) // _BATCH)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"pixels": batch}

    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = Path(folder, "prepared.onnx"), Path(folder, "quantized.onnx")
        # onnxruntime optimises when it loads; here that would only unpack an int8 memory to float32.
        quant_pre_process(str(exported), str(prepared), skip_symbolic_shape=True, skip_optimization=True)
        quantize_static(
            str(prepared),
            str(quantized),
            Pictures(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # CPUs without VNNI add two products in 16 bits: weights of 8 bits overflow there, those of 7 never do.
            reduce_range=True,
        )
        stored = OnnxClassifier(exported).session.get_modelmeta().custom_metadata_map
        path.write_bytes(
            with_metadata(quantized.read_bytes(), {key: json.loads(value) for key, value in stored.items()})
        )


def compare(exported: OnnxClassifier, quantized: OnnxClassifier, validation: ArraySplit) -> dict:
    """Accuracy and time of both, whether the quantised one is kept, and if not why."""
    before, after = (accuracy(classifier, validation) for classifier in (exported, quantized))
    fp32_ms, int8_ms = median_ms_per_face([exported, quantized])
    loss_points, speedup = 100 * (before - after), fp32_ms / int8_ms
    reason = None
    if not loss_points <= MAX_LOSS_POINTS:
        reason = f"it loses {loss_points:.2f} points of accuracy, and {MAX_LOSS_POINTS} are allowed"
    elif not speedup >= MIN_SPEEDUP:
        reason = f"it is {speedup:.2f} times as fast, and {MIN_SPEEDUP} is asked for"
    return {
        "kept": reason is None,
        "reason": reason,
        "n": len(validation),
        "accuracy_fp32": before,
        "accuracy_int8": after,
        "loss_points": loss_points,
        "fp32_ms_per_face": fp32_ms,
        "int8_ms_per_face": int8_ms,
        "speedup": speedup,
        "threads": THREADS,
    }


def accuracy(classifier: OnnxClassifier, split: ArraySplit) -> float:
    """Share of rows whose most probable class is the right one, in [0, 1]."""
    answers = [classifier.logits(batch.numpy()).argmax(axis=1) for batch in split.images.split(_BATCH)]
    return float((np.concatenate(answers) == split.labels.numpy()).mean())


def median_ms_per_face(classifiers: list[OnnxClassifier]) -> tuple[float, ...]:
    """Median milliseconds of one face for each, measured in turns so that other work on the machine meets all alike."""
    first = classifiers[0]
    pixels = np.random.default_rng(0).integers(
        0, 256, (1, first.num_channels, first.size_px, first.size_px), dtype=np.uint8
    )
    timings: list[list[float]] = [[] for _ in classifiers]
    for turn in range(_WARM_UP + _TIMED):
        for classifier, own in zip(classifiers, timings, strict=True):
            start = time.perf_counter()
            classifier.logits(pixels)
            if turn >= _WARM_UP:
                own.append(1000 * (time.perf_counter() - start))
    return tuple(statistics.median(own) for own in timings)


def summary(report: dict) -> str:
    """One line for the terminal."""
    return (
        f"{report['bytes'] / 1e6:.1f} MB, accuracy {report['accuracy_int8']:.4f} for {report['accuracy_fp32']:.4f} on "
        f"{report['n']:,} rows, {report['int8_ms_per_face']:.2f} ms for {report['fp32_ms_per_face']:.2f} ms a face on "
        f"{report['threads']} thread(s)"
    )
