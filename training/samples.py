"""Sample predictions with attention: ``python training/samples.py --model M --photos FOLDER --output samples.webp``.

Takes rows of a data set (``--data``), or every face in a folder of outside photos (``--photos``), whose layout is free.
Each sample is the crop as the model saw it, Grad-CAM over it, and the most probable expressions.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from fer_hf.faces import Prediction
from fer_hf.figures import Sample, figure_path, sample_figure, save_figure
from fer_hf.image_io import ImageError
from fer_hf.recognition import GRAD_CAM, ExpressionRecognizer
from fer_hf.rendering import overlay_heat
from training.arguments import positive
from training.scoring import add_reading_arguments, load_split, make_place, source_options

_SHOWN_PX = 192
_TOP = 2


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder or Hub id")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", nargs="+", action="extend", help="data as in eval.py; rows are drawn by seed")
    source.add_argument("--photos", type=Path, help="a folder of photos with any number of faces")
    add_reading_arguments(parser)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--count", type=positive, default=12, help="samples at most (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True, type=Path, help="the picture to write")
    return parser.parse_args(argv)


def as_sample(prediction: Prediction, said: str) -> Sample:
    """A prediction with attention as two pictures and lines of text, of which ``said`` is the first."""
    crop = prediction.aligned.crop.convert("RGB").resize((_SHOWN_PX, _SHOWN_PX))
    seen = overlay_heat(crop, prediction.attention[GRAD_CAM])
    top = sorted(prediction.scores.items(), key=lambda item: -item[1])[:_TOP]
    guesses = ", ".join(f"{name} {100 * score:.0f}%" for name, score in top)
    return Sample(np.asarray(crop), np.asarray(seen), f"{said}\n{guesses}")


def samples_of_data(recognizer: ExpressionRecognizer, arguments: argparse.Namespace) -> list[Sample]:
    """Rows of a data set, drawn by seed, each with its label."""
    rows = load_split(arguments.data, arguments.split, source_options(arguments, len(recognizer.labels)))
    names = rows.features["label"].names
    drawn = rows.select(np.sort(np.random.default_rng(arguments.seed).permutation(len(rows))[: arguments.count]))
    found = [recognizer.recognize(row["image"], faces="crop", attention=True).predictions[0] for row in drawn]
    return [as_sample(one, f"label: {names[row['label']]}") for one, row in zip(found, drawn, strict=True)]


def samples_of_photos(recognizer: ExpressionRecognizer, folder: Path, count: int) -> list[Sample]:
    """Faces in a folder of photos, by file name; a file that is no picture is named on stderr."""
    samples: list[Sample] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if len(samples) >= count:
            break
        try:
            predictions = recognizer.recognize(path, attention=True).predictions
        except ImageError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            continue
        samples += [as_sample(one, path.name) for one in predictions]
    return samples[:count]


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    make_place(figure_path(arguments.output))
    recognizer = ExpressionRecognizer.from_pretrained(arguments.model)
    if arguments.photos:
        samples = samples_of_photos(recognizer, arguments.photos, arguments.count)
    else:
        samples = samples_of_data(recognizer, arguments)
    if not samples:
        raise ValueError(f"no face was found in {arguments.photos}; give pictures that show one")
    name = Path(arguments.model).resolve().name if Path(arguments.model).is_dir() else arguments.model
    save_figure(sample_figure(samples, f"{name}: perceived expression and Grad-CAM"), arguments.output)
    print(f"{len(samples)} samples in {arguments.output}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"samples.py: {error}")
