"""``python -m fer_hf photo.heic other.jpg``: the perceived expression of every face, one line a photo."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from .attention import warp_to_photo
from .faces import Face, Prediction
from .hub import ModelError
from .image_io import ImageError
from .recognition import BACKENDS, GRAD_CAM, ExpressionRecognizer, Recognition, as_dict
from .rendering import draw_faces, overlay_heat, percent

MAX_ATTENTION_PX = 1600
"""The longer side of an attention picture; larger photos are shrunk first."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 2 where the model, the attention picture or any photo failed; the others are still done."""
    options = _parse(arguments)
    try:
        recognizer = ExpressionRecognizer.from_pretrained(options.model, backend=options.backend)
        if options.attention and not recognizer.attention_names:
            return _fail("This model offers no attention to draw; leave out --attention or name another with --model.")
    except ModelError as error:
        return _fail(str(error))
    failed = False
    for number, photo in enumerate(options.photos, start=1):
        try:
            result = recognizer.recognize(photo, tta=options.tta, attention=options.attention is not None)
        except ImageError as error:
            _fail(str(error))
            failed = True
            continue
        wanted = options.attention is not None and result.predictions
        drawn = _attention_path(options, number) if wanted else None
        fault = drawn and _write_attention(result, drawn)
        line = _as_json if options.json else _as_text
        print(line(photo, result, None if fault else drawn), flush=True)
        if fault:
            _fail(f"The attention picture of {photo} cannot be written to {drawn} ({fault}).")
            failed = True
    return 2 if failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fer_hf", description=__doc__.split(": ", 1)[1])
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC or AVIF")
    parser.add_argument("--json", action="store_true", help="one JSON object a line for each photo")
    parser.add_argument(
        "--attention",
        metavar="OUT.png",
        type=Path,
        help="draw where the evidence lies (Grad-CAM); with several photos OUT-1.png, OUT-2.png, … in their order",
    )
    parser.add_argument("--model", help="a model folder or Hub id, user/name@revision (default: FER_MODEL or embedded)")
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="torch",
        help="what runs it; onnx: the model's model.onnx, or --model F.onnx",
    )
    parser.add_argument("--tta", action="store_true", help="average over each face and its mirror image")
    options = parser.parse_args(arguments)
    if options.attention is not None:
        if options.backend != "torch":
            parser.error("--attention is read inside the network, which only --backend torch allows")
        writable = Image.registered_extensions()
        if writable.get(options.attention.suffix.lower()) not in ("PNG", "JPEG", "WEBP"):
            parser.error(f"--attention {options.attention}: name a .png, .jpg or .webp file")
        if not options.attention.absolute().parent.is_dir():
            parser.error(f"--attention {options.attention}: its folder does not exist; make it first")
        outputs = {_attention_path(options, number).resolve() for number in range(1, len(options.photos) + 1)}
        if outputs & {Path(photo).resolve() for photo in options.photos}:
            parser.error(f"--attention {options.attention} would overwrite a photo; name another file")
    return options


def _attention_path(options: argparse.Namespace, number: int) -> Path:
    out = options.attention
    return out if len(options.photos) == 1 else out.with_stem(f"{out.stem}-{number}")


def _write_attention(result: Recognition, path: Path) -> str | None:
    """Why the file could not be written, which then is as it was before; None where it was."""
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            _draw_attention(result).save(part, Image.registered_extensions()[path.suffix.lower()])
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _draw_attention(result: Recognition) -> Image.Image:
    """The photo with its faces and where the evidence for them lies."""
    scale = min(1.0, MAX_ATTENTION_PX / max(result.photo.size))
    photo = result.photo
    if scale < 1:
        photo = photo.resize((max(round(photo.width * scale), 1), max(round(photo.height * scale), 1)))
    scale_xy = np.array(photo.size) / result.photo.size
    heat = np.zeros(photo.size[::-1], dtype=np.float32)
    for prediction in result.predictions:
        affine = prediction.aligned.photo_to_crop / (*scale_xy, 1)
        heat = np.maximum(heat, warp_to_photo(prediction.attention[GRAD_CAM], affine, photo.size))
    return draw_faces(overlay_heat(photo, heat), [_scaled(prediction, scale_xy) for prediction in result.predictions])


def _scaled(prediction: Prediction, scale_xy: np.ndarray) -> Prediction:
    box = tuple((np.array(prediction.face.box_xyxy).reshape(2, 2) * scale_xy).ravel().tolist())
    return replace(prediction, face=Face(box, prediction.face.score))


def _as_text(photo: str, result: Recognition, drawn: Path | None) -> str:
    faces = []
    for prediction in result.predictions:
        box = ", ".join(map(str, as_dict(prediction)["box"].values()))
        faces.append(f"{prediction.label} {percent(prediction.score)} at ({box})")
    parts = ["; ".join(faces) if faces else "no face found", *result.notes]
    if drawn:
        parts.append(f"attention in {drawn}")
    return f"{photo}: {' | '.join(parts)}"


def _as_json(photo: str, result: Recognition, drawn: Path | None) -> str:
    faces = [as_dict(replace(prediction, attention=None)) for prediction in result.predictions]
    row = {"photo": photo, "faces": faces, "skipped": result.skipped, "notes": list(result.notes)}
    if drawn:
        row["attention"] = str(drawn)
    return json.dumps(row, ensure_ascii=False)


def _fail(sentence: str) -> int:
    print(sentence, file=sys.stderr, flush=True)
    return 2


def _main_in_a_pipe() -> int:
    """The exit code of ``main``; 141, as a shell tells of other tools, where what reads the output has ended."""
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        for stream in (sys.stdout, sys.stderr):  # what they still hold is written as Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 141


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot show
    sys.exit(_main_in_a_pipe())
