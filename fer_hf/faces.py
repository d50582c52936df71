"""Faces in a photo: records, box geometry, and alignment to the framing a model was trained on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Face:
    """One detected face, in photo pixels.

    ``box_xyxy`` has x0 < x1 and y0 < y1 and may reach past the photo. ``landmarks`` are five (x, y): the eye on the
    picture's left, the eye on its right, the nose tip, the mouth corner on the left and the one on the right.
    """

    box_xyxy: Box
    score: float
    landmarks: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True)
class AlignedFace:
    """A square RGB crop and the affine that made it.

    ``photo_to_crop`` is (2, 3) float64: ``crop_xy = A @ (x, y, 1)``, both in pixels, the first pixel spanning 0 to 1.
    """

    crop: Image.Image
    photo_to_crop: np.ndarray


@dataclass(frozen=True)
class Prediction:
    """The perceived expression of one face: every class with its probability, in the model's class order.

    ``face`` is None where the picture was given as a crop. ``attention`` maps a name to an (h, w) map in crop space
    with values in [0, 1], or to (C,) channel gates. ``answer_threshold`` is the probability from which the model's
    config lets a class belong to the answer; None where it states none, or where ``scores`` are a mean over views.
    """

    scores: dict[str, float]
    face: Face | None
    aligned: AlignedFace
    attention: dict[str, np.ndarray] | None = None
    answer_threshold: float | None = None

    @property
    def label(self) -> str:
        return max(self.scores, key=self.scores.get)

    @property
    def score(self) -> float:
        return self.scores[self.label]


def area_xyxy(box: Box) -> float:
    """Area in square pixels; 0 for an empty box."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def iou_xyxy(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, in [0, 1]; 0 where both are empty.

    >>> iou_xyxy((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    overlap = area_xyxy((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = area_xyxy(a) + area_xyxy(b) - overlap
    return overlap / union if union > 0 else 0.0


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The (2, 3) rotation, uniform scale and shift that takes points (N, 2) onto others with least squared error.

    Never mirrors. Raises ValueError where all source points coincide. Source: Umeyama, "Least-squares estimation of
    transformation parameters between two point patterns", PAMI 1991; in the plane it is one complex division.
    """
    source_z, target_z = (np.asarray(points, dtype=np.float64) @ (1, 1j) for points in (source, target))
    centred = source_z - source_z.mean()
    energy = float((abs(centred) ** 2).sum())
    if energy < 1e-12:
        raise ValueError("the source points coincide; a similarity transform needs at least two distinct points")
    turn = (centred.conj() @ (target_z - target_z.mean())) / energy
    shift = target_z.mean() - turn * source_z.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def invert_affine(affine: np.ndarray) -> np.ndarray:
    """The inverse of a (2, 3) affine, again (2, 3)."""
    return np.linalg.inv(np.vstack([affine, (0, 0, 1)]))[:2]


def align_face(
    image: Image.Image,
    face: Face,
    *,
    template: Sequence[Sequence[float]] | None,
    size_px: int,
    margin: float = 0.0,
) -> AlignedFace:
    """The face cropped to ``size_px``² as the model was trained to see it.

    With a ``template`` (5, 2), normalised to the crop, the landmarks are warped onto it by a similarity transform.
    Without one, or without landmarks, a square around the box's centre is taken whose side is the longer side of the
    box times ``1 + margin``. What lies outside the photo repeats the photo's edge.
    """
    if template is not None and face.landmarks is not None:
        affine = similarity_transform(np.array(face.landmarks), np.array(template, dtype=np.float64) * size_px)
    else:
        affine = _box_affine(face.box_xyxy, size_px, margin)
    return AlignedFace(warp(image, affine, size_px), affine)


def _box_affine(box: Box, size_px: int, margin: float) -> np.ndarray:
    side = max(box[2] - box[0], box[3] - box[1]) * (1 + margin)
    if not side > 0:
        raise ValueError(
            f"the face box {box} with margin {margin} is empty; x0 < x1, y0 < y1 and margin > -1 are needed"
        )
    scale = size_px / side
    return np.array(
        [
            [scale, 0, size_px / 2 - scale * (box[0] + box[2]) / 2],
            [0, scale, size_px / 2 - scale * (box[1] + box[3]) / 2],
        ]
    )


def warp(image: Image.Image, photo_to_crop: np.ndarray, size_px: int) -> Image.Image:
    """The (size_px, size_px) picture whose pixels come from ``image`` through the affine, without aliasing.

    Every pixel is the mean over its own footprint in the photo, wherever that lies between the photo's pixels, so that
    landmarks which move by a tenth of a pixel change the crop as little as they should. Only the part of the photo that
    is needed is touched. What lies outside the photo repeats its edge.
    """
    crop_to_photo = invert_affine(photo_to_crop)
    step = float(np.hypot(crop_to_photo[0, 0], crop_to_photo[1, 0]))  # photo pixels to one crop pixel
    shrink = max(int(step // 2), 1)  # by whole pixels first, which is fast and leaves at least two to a crop pixel
    samples = max(math.ceil(step / shrink), 1)  # along each side of a crop pixel
    corners = np.array([(0, 0, 1), (size_px, 0, 1), (0, size_px, 1), (size_px, size_px, 1)], dtype=np.float64)
    reach = corners @ crop_to_photo.T
    pad = step + 2 * shrink
    x0, y0 = np.floor(reach.min(axis=0) - pad).astype(int)
    x1, y1 = np.ceil(reach.max(axis=0) + pad).astype(int)
    patch = _cut_with_edges(image, x0, y0, x1 + (x0 - x1) % shrink, y1 + (y0 - y1) % shrink).reduce(shrink)
    inverse = crop_to_photo.copy()
    inverse[:, 2] -= (x0, y0)
    inverse[:, :2] /= samples
    fine_px = size_px * samples
    fine = patch.transform(
        (fine_px, fine_px), Image.Transform.AFFINE, tuple((inverse / shrink).ravel()), Image.Resampling.BILINEAR
    )
    return fine.reduce(samples)


def _cut_with_edges(image: Image.Image, x0: int, y0: int, x1: int, y1: int) -> Image.Image:
    width, height = image.size
    inside = (min(max(x0, 0), width - 1), min(max(y0, 0), height - 1), max(min(x1, width), 1), max(min(y1, height), 1))
    inside = (inside[0], inside[1], max(inside[2], inside[0] + 1), max(inside[3], inside[1] + 1))
    patch = image.crop(inside)
    before_after = ((inside[1] - y0, y1 - inside[3]), (inside[0] - x0, x1 - inside[2]))
    if all(amount <= 0 for pair in before_after for amount in pair):
        return patch
    padding = [(max(a, 0), max(b, 0)) for a, b in before_after]
    array = np.asarray(patch)
    return Image.fromarray(np.pad(array, padding + [(0, 0)] * (array.ndim - 2), mode="edge"))
