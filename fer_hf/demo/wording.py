"""Sentences for visitors: how sure the model is, what is wrong with a face, what a photo holds."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from fer_hf.faces import AlignedFace, Face, Prediction
from fer_hf.rendering import percent

SMALL_FACE_PX = 40
"""Below this many photo pixels across, a 48-pixel crop is mostly interpolated."""
SURE_LEAD = 0.25
"""The lead over the next class from which a label stands alone."""
TURNED_NOSE = 0.3
"""How far the nose tip may lie from the middle of the eyes, as a share of their distance: about 30° of turn."""
BLURRED_DETAIL = 0.012
"""Mean second difference of a crop's grey values, as a share of their range, below which it counts as blurred."""
TINY_PHOTO_PX = 40


def name_expression(scores: Mapping[str, float]) -> str:
    """The top label where it leads clearly, else what it is between: ``fear or surprise``, most likely first.

    >>> name_expression({"fear": 0.45, "surprise": 0.4, "happy": 0.15})
    'fear or surprise'
    """
    ranked = sorted(scores, key=scores.get, reverse=True)
    close = [name for name in ranked if scores[ranked[0]] - scores[name] < SURE_LEAD][:3]
    return close[0] if len(close) == 1 else f"{', '.join(close[:-1])} or {close[-1]}"


def describe_face(prediction: Prediction) -> str:
    """``happy, 97%`` or ``fear or surprise (45%, 40%)``."""
    name = name_expression(prediction.scores)
    if " or " not in name:
        return f"{name}, {percent(prediction.score)}"
    parts = sorted(prediction.scores.values(), reverse=True)[: name.count(",") + 2]
    return f"{name} ({', '.join(percent(part) for part in parts)})"


def warn_about_face(face: Face, aligned: AlignedFace) -> list[str]:
    """Sentences on what makes this face's result less trustworthy; empty for a clear, upright, frontal face."""
    warnings = []
    side_px = min(face.box_xyxy[2] - face.box_xyxy[0], face.box_xyxy[3] - face.box_xyxy[1])
    if side_px < SMALL_FACE_PX:
        warnings.append(f"Small face, {side_px:.0f} pixels across: the result is less certain than it looks.")
    elif measure_detail(aligned.crop) < BLURRED_DETAIL:
        warnings.append("Blurred or flat face: the result is less certain than it looks.")
    if face.landmarks is not None and measure_turn(face.landmarks) > TURNED_NOSE:
        warnings.append("Turned face: the model has mostly seen faces from the front.")
    return warnings


def measure_turn(landmarks: Sequence[tuple[float, float]]) -> float:
    """How far the nose tip lies from the middle of the eyes along their line, as a share of the eyes' distance."""
    left_eye, right_eye, nose = (np.array(point) for point in landmarks[:3])
    axis = right_eye - left_eye
    length = float(np.hypot(*axis))
    return float("inf") if length == 0 else abs(float((nose - (left_eye + right_eye) / 2) @ axis)) / length**2


def measure_detail(crop: Image.Image) -> float:
    """Mean absolute Laplacian of a crop's grey values as a share of their range; 0 for a flat picture."""
    grey = np.asarray(crop.convert("L").resize((48, 48), Image.Resampling.BILINEAR), dtype=np.float64)
    span = np.percentile(grey, 98) - np.percentile(grey, 2)
    if span < 8:
        return 0.0
    centre = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return float(np.abs(centre).mean() / span / 4)


def summarise(predictions: Sequence[Prediction], photo_wh: tuple[int, int]) -> str:
    """One or two sentences on what was found in a photo, with advice where nothing was."""
    count = len(predictions)
    if count == 0:
        return _no_face(photo_wh)
    if count == 1:
        return f"One face, perceived as {describe_face(predictions[0])}."
    labels = Counter(prediction.label for prediction in predictions).most_common()
    counted = ", ".join(f"{number} {label}" for label, number in labels)
    return f"{count} faces: {counted}."


def _no_face(photo_wh: tuple[int, int]) -> str:
    if min(photo_wh) < TINY_PHOTO_PX:
        return (
            f"No face found. This picture is only {photo_wh[0]} × {photo_wh[1]} pixels; "
            "a face needs about 20 pixels, and 50 or more for a good result."
        )
    return "No face found. It helps when the face is upright, well lit, not covered, and fills more of the picture."
