"""Derive the face template of FER2013: where its crops have the eyes, the nose tip and the mouth corners.

    python training/face_template.py --data DIR_OR_CSV --output template.json --figure docs/figures/face_template.png

The detector that will find the faces in photos is run over a seeded sample of training crops, edge-padded (so that
faces that fill the crop are found whole) and enlarged. How the template is used is told in docs/alignment.md.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tqdm
from PIL import Image

from fer_hf.data.sources import load_source
from fer_hf.detection import MTCNNDetector
from fer_hf.faces import Face, similarity_transform
from training.arguments import positive
from training.files import write_json

PAD_SHARE = 1 / 3  # of the crop's side, added on each side
ENLARGED_PX = 320
SURE_THRESHOLDS = (0.6, 0.7, 0.9)  # surer than for photos: a missed crop costs nothing here, a wrong landmark does
MIRROR_ORDER = (1, 0, 2, 4, 3)  # a mirrored face's left eye is its right one


def find_landmarks(crop: Image.Image, detector: MTCNNDetector) -> np.ndarray | None:
    """The landmarks (5, 2) of a crop's own face, normalised to the crop, or None where none is near its centre."""
    side = crop.width
    pad = round(side * PAD_SHARE)
    padded = np.pad(np.asarray(crop.convert("L")), pad, mode="edge")
    enlarged = Image.fromarray(padded).resize((ENLARGED_PX, ENLARGED_PX), Image.Resampling.BICUBIC).convert("RGB")
    faces = detector.detect(enlarged).faces
    if not faces:
        return None
    face = min(faces, key=_distance_from_centre)
    if _distance_from_centre(face) > ENLARGED_PX / 4:
        return None
    return (np.array(face.landmarks) * (side + 2 * pad) / ENLARGED_PX - pad) / side


def _distance_from_centre(face: Face) -> float:
    x0, y0, x1, y1 = face.box_xyxy
    return float(np.hypot((x0 + x1) / 2 - ENLARGED_PX / 2, (y0 + y1) / 2 - ENLARGED_PX / 2))


def symmetric_median(landmarks: np.ndarray) -> np.ndarray:
    """The median (5, 2) of landmarks (N, 5, 2) and of their mirror images about the crop's vertical middle.

    Training flips half of the crops, so the model sees both; the template that fits both is the same as its mirror.
    """
    mirrored = landmarks[:, MIRROR_ORDER] * (-1, 1) + (1, 0)
    return np.median(np.concatenate([landmarks, mirrored]), axis=0)


def crop_motions(landmarks: np.ndarray, template: np.ndarray) -> dict[str, np.ndarray]:
    """How each crop would move to lie on the template: arrays (N,) of the best similarity transform's parts.

    ``shift_x`` and ``shift_y`` of the crop's centre in shares of its side, ``log_scale`` (natural), ``rotation_deg``,
    and ``residual``, the root mean square distance of the landmarks from the template that is left.
    """
    affines = np.array([similarity_transform(points, template) for points in landmarks])
    shifts = affines @ (0.5, 0.5, 1) - 0.5
    moved = np.einsum("nij,nkj->nki", affines[:, :, :2], landmarks) + affines[:, None, :, 2]
    return {
        "shift_x": shifts[:, 0],
        "shift_y": shifts[:, 1],
        "log_scale": np.log(np.hypot(affines[:, 0, 0], affines[:, 1, 0])),
        "rotation_deg": np.degrees(np.arctan2(affines[:, 1, 0], affines[:, 0, 0])),
        "residual": np.sqrt(((moved - template) ** 2).sum(axis=2).mean(axis=1)),
    }


def summarize(values: np.ndarray) -> dict[str, float]:
    """Median, standard deviation, the robust one (interquartile range / 1.349) and the 5 and 95% quantiles."""
    low, q1, median, q3, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
    figures = {"median": median, "std": values.std(), "robust_std": (q3 - q1) / 1.349, "q05": low, "q95": high}
    return {name: round(float(value), 4) for name, value in figures.items()}


def draw_figure(path: Path, crops: Sequence[np.ndarray], landmarks: np.ndarray, template: np.ndarray) -> None:
    """Write the picture of docs/alignment.md: mean face, landmarks, template, and the spread of the crops."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(11, 4.2), layout="constrained")
    grid = figure.add_gridspec(2, 4, width_ratios=[2, 2, 1.2, 1.2])
    face = figure.add_subplot(grid[:, 0])
    face.imshow(np.mean(crops, axis=0), cmap="gray", extent=(0, 1, 1, 0))
    face.set_title(f"mean of {len(crops)} crops, and the template")
    face.plot(*template.T, "o", color="#f59e0b", markeredgecolor="black", markersize=8)
    cloud = figure.add_subplot(grid[:, 1])
    for points, colour in zip(landmarks.transpose(1, 0, 2), plt.cm.tab10.colors, strict=False):
        cloud.plot(*points.T, ".", color=colour, markersize=2, alpha=0.4)
    cloud.plot(*template.T, "o", color="#f59e0b", markeredgecolor="black", markersize=8)
    cloud.set(title="landmarks of each crop", xlim=(0, 1), ylim=(1, 0), aspect="equal")
    for panel in (face, cloud):
        panel.set_xticks([0, 0.5, 1])
        panel.set_yticks([0, 0.5, 1])
    motions = crop_motions(landmarks, template)
    names = {
        "shift_x": "shift x / side",
        "shift_y": "shift y / side",
        "log_scale": "log scale",
        "rotation_deg": "rotation / °",
    }
    for position, (name, label) in enumerate(names.items()):
        panel = figure.add_subplot(grid[position // 2, 2 + position % 2])
        limit = np.quantile(abs(motions[name]), 0.99)
        panel.hist(motions[name], bins=40, range=(-limit, limit), color="#0d9488")
        panel.set(xlabel=label, yticks=[])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Derive the template, print it, and write the JSON and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, help="folder of parquet files or a fer2013.csv")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--figure", type=Path, help="PNG file to write")
    parser.add_argument("--sample", type=positive, default=1600, help="training crops to look at")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    train = load_source(options.data)["train"]
    sample = np.random.default_rng(options.seed).permutation(len(train))[: options.sample]
    detector = MTCNNDetector(min_face_share=0.25, thresholds=SURE_THRESHOLDS)
    crops, landmarks = [], []
    for crop in tqdm.tqdm(train.select(sample)["image"], desc="crops", unit="crop"):
        points = find_landmarks(crop, detector)
        if points is not None:
            crops.append(np.asarray(crop.convert("L")))
            landmarks.append(points)
    if not landmarks:
        parser.error(f"no face was found in {len(sample)} crops of {options.data}; is it a set of face crops?")
    landmarks = np.array(landmarks)
    template = symmetric_median(landmarks).round(4)
    report = {
        "face_template": template.tolist(),
        "spread": {name: summarize(values) for name, values in crop_motions(landmarks, template).items()},
        "detected": len(landmarks),
        "of": len(sample),
        "seed": options.seed,
    }
    write_json(options.output, report)
    if options.figure:
        draw_figure(options.figure, crops, landmarks, template)
    print(f"face_template: {report['face_template']}  ({len(landmarks)} of {len(sample)} crops)")


if __name__ == "__main__":
    main()
