"""Export a model for onnxruntime: ``python training/export.py --model model_cards/NAME --format onnx [--int8 ...]``.

Writes model.onnx (uint8 pixels in, calibrated logits out, labels and framing in its metadata) and export_report.json.
The file is kept only where its logits are those of the model. ``--int8 --data DATA`` also writes model_int8.onnx, and
keeps it only where it is fast and accurate enough on the validation split.
"""

import argparse
import copy
import hashlib
import io
import json
import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fer_hf.classifier import fold_norms
from fer_hf.models.image_processing_fer import FerImageProcessor
from fer_hf.models.modeling_fer import FerPreTrainedModel
from fer_hf.onnx import FILE_NAME, OnnxClassifier
from training.arguments import positive
from training.files import read_json, write_json
from training.scoring import LABELS, Loaded, add_reading_arguments, load

INT8_NAME = "model_int8.onnx"
REPORT_NAME = "export_report.json"
MAX_DIFFERENCE = 1e-4
"""Between logits of onnxruntime and torch, in float32."""
PARITY_BATCHES = (1, 3)
OPSET = 18


class ExportError(ValueError):
    """An export that is refused; the message is one sentence with the figures that say why."""


class PixelsToLogits(nn.Module):
    """(B, C, H, W) uint8 -> calibrated logits (B, K): the image processor's normalisation, then the network."""

    def __init__(self, model: FerPreTrainedModel, processor: FerImageProcessor):
        super().__init__()
        self.model, self.processor = model, processor

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(self.processor.normalize_uint8(pixels)).logits


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder or Hub id")
    parser.add_argument("--format", default="onnx", choices=("onnx",))
    parser.add_argument("--output", type=Path, help="folder for the files (default: the model's own)")
    parser.add_argument("--int8", action="store_true", help="also quantise to 8 bits; needs --data")
    parser.add_argument(
        "--data", nargs="+", action="extend", help="calibrates on its train and measures on its validation split"
    )
    add_reading_arguments(parser)
    parser.add_argument("--labels", default="fer2013", choices=LABELS, help="what is right (default: %(default)s)")
    parser.add_argument("--calibration-rows", type=positive, default=512, help="of train (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.int8 and not arguments.data:
        parser.error("--int8 needs --data: a train split to calibrate on and a validation split to measure on")
    return arguments


def export_onnx(loaded: Loaded, path: Path) -> dict:
    """Write the model as an .onnx file, whole or not at all, and return what was found out about it.

    Raises ExportError where torch cannot export it or onnxruntime's logits are not torch's.
    """
    content = with_metadata(graph_of(loaded), metadata(loaded))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        difference = greatest_difference(loaded, OnnxClassifier(part))
        if not difference <= MAX_DIFFERENCE:
            raise ExportError(
                f"onnxruntime's logits differ from torch's by {difference:.2g}, more than {MAX_DIFFERENCE:g}; "
                f"{path.name} was not written"
            )
        publish(part, path)
    finally:
        part.unlink(missing_ok=True)
    return {
        "file": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "greatest_logit_difference": difference,
        "batches": list(PARITY_BATCHES),
    }


def graph_of(loaded: Loaded) -> bytes:
    """The model as ONNX with a dynamic batch, in float32, batch norms folded, weights inside."""
    config = loaded.model.config
    network = PixelsToLogits(fold_norms(in_float32(loaded.model)), loaded.processor).eval()
    example = torch.zeros(2, config.num_channels, config.image_size, config.image_size, dtype=torch.uint8)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    try:
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(f"torch cannot export {loaded.name} to ONNX: {str(error).splitlines()[0]}") from error
    buffer = io.BytesIO()
    program.save(buffer)
    return buffer.getvalue()


def in_float32(model: FerPreTrainedModel) -> FerPreTrainedModel:
    """A copy of its own on the CPU, where nothing has been rounded but the weights as they were stored."""
    return copy.deepcopy(model).float().cpu().eval()


def metadata(loaded: Loaded) -> dict[str, object]:
    """What stands in the file: what ``fer_hf.onnx`` needs, and which weights and temperature it was made of."""
    processor = loaded.processor
    return {
        "labels": list(loaded.class_names),
        "size": processor.size_px,
        "num_channels": processor.num_channels,
        "face_template": processor.face_template,
        "face_margin": processor.face_margin,
        "conformal_threshold": loaded.model.config.conformal_threshold,
        "conformal_coverage": loaded.model.config.conformal_coverage,
        "weights_sha256": loaded.weights_sha256,
        "temperature": loaded.model.config.temperature,
    }


def with_metadata(content: bytes, values: dict[str, object]) -> bytes:
    """The ONNX file with these values, each as JSON, in place of its metadata.

    What the exporter notes at every node goes too: the source lines that it came from, by their paths on this machine.
    """
    import onnx

    graph = onnx.load_from_string(content)
    onnx.helper.set_model_props(graph, {key: json.dumps(value) for key, value in values.items()})
    inner = graph.graph
    for noted in (inner, *inner.node, *inner.input, *inner.output, *inner.value_info, *inner.initializer):
        noted.ClearField("metadata_props")
    onnx.checker.check_model(graph)
    return graph.SerializeToString()


def greatest_difference(loaded: Loaded, exported: OnnxClassifier) -> float:
    """The greatest |difference| of onnxruntime's logits from those of the model as loaded, over seeded pixels."""
    rng, differences = np.random.default_rng(0), []
    model = in_float32(loaded.model)
    for batch in PARITY_BATCHES:
        shape = (batch, exported.num_channels, exported.size_px, exported.size_px)
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        with torch.inference_mode():
            expected = model(loaded.processor.normalize_uint8(torch.from_numpy(pixels))).logits.numpy()
        differences.append(float(np.abs(exported.logits(pixels) - expected).max()))
    return max(differences)


def publish(part: Path, path: Path) -> None:
    """Give a finished file its name once its bytes are on the disk."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def int8_of(loaded: Loaded, folder: Path) -> dict | None:
    """What the report in a folder says of the 8-bit file there; None unless that is of this model as it is now."""
    file, report = folder / INT8_NAME, folder / REPORT_NAME
    if not (file.is_file() and report.is_file()):
        return None
    try:
        recorded = read_json(report).get("int8")
        stored = OnnxClassifier(file).session.get_modelmeta().custom_metadata_map
    except ValueError:  # either is damaged
        return None
    if not recorded or recorded["sha256"] != hashlib.sha256(file.read_bytes()).hexdigest():
        return None
    return recorded if stored == {key: json.dumps(value) for key, value in metadata(loaded).items()} else None


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    loaded = load(arguments.model, "cpu")
    folder = arguments.output or loaded.folder
    if arguments.output is None and not Path(arguments.model).is_dir():
        raise ValueError(f"{arguments.model} is on the Hub; say with --output where the files go")
    report = {
        "model": loaded.name,
        "weights_sha256": loaded.weights_sha256,
        "temperature": loaded.model.config.temperature,
        "versions": {name: version(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime")},
        "onnx": export_onnx(loaded, folder / FILE_NAME),
    }
    if kept := int8_of(loaded, folder):
        report["int8"] = kept
    write_json(folder / REPORT_NAME, report)
    if "int8" not in report:
        (folder / INT8_NAME).unlink(missing_ok=True)  # it is of another model
    print(
        f"{folder / FILE_NAME}: {report['onnx']['bytes'] / 1e6:.1f} MB, logits within "
        f"{report['onnx']['greatest_logit_difference']:.1e} of torch's"
    )
    if arguments.int8:
        from training.quantize import add_int8, summary

        report["int8"] = add_int8(loaded, folder / FILE_NAME, folder / INT8_NAME, arguments)
        write_json(folder / REPORT_NAME, report)
        print(f"{folder / INT8_NAME}: {summary(report['int8'])}")
        if not report["int8"]["kept"]:
            (folder / INT8_NAME).unlink(missing_ok=True)
            raise ExportError(f"{INT8_NAME} is not kept: {report['int8']['reason']}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"export.py: {error}")
