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
"""The lead over the next class from which a label stands alone, for models that state no threshold for answers."""
TURNED_NOSE = 0.3
"""How far the nose tip may lie from the middle of the eyes, as a share of their distance: about 30° of turn."""
BLURRED_DETAIL = 0.012
"""Mean second difference of a crop's grey values, as a share of their range, below which it counts as blurred."""
TINY_PHOTO_PX = 40


def name_classes(scores: Mapping[str, float], threshold: float | None = None) -> list[str]:
    """The expressions that an honest answer names, most likely first.

    With the ``threshold`` of the model's config, the top one and each that reaches it, as in
    ``ExpressionRecognizer.answer``; without, the top one and up to two that it does not lead clearly.
    """
    ranked = sorted(scores, key=scores.get, reverse=True)
    if threshold is not None:
        return [ranked[0], *(name for name in ranked[1:] if scores[name] >= threshold)]
    return [name for name in ranked if scores[ranked[0]] - scores[name] < SURE_LEAD][:3]


def name_expression(scores: Mapping[str, float], threshold: float | None = None) -> str:
    """The expressions that ``name_classes`` gives, as words; "perhaps" where even the top one misses the threshold.

    >>> name_expression({"fear": 0.45, "surprise": 0.4, "happy": 0.15})
    'fear or surprise'
    >>> name_expression({"fear": 0.35, "surprise": 0.33, "happy": 0.32}, threshold=0.38)
    'perhaps fear'
    """
    *others, last = name_classes(scores, threshold)
    if others:
        return f"{', '.join(others)} or {last}"
    return f"perhaps {last}" if threshold is not None and scores[last] < threshold else last


def describe_face(prediction: Prediction) -> str:
    """``happy, 97%``, ``fear or surprise (45%, 40%)`` or ``perhaps fear, 35%``."""
    scores, threshold = prediction.scores, prediction.answer_threshold
    name, classes = name_expression(scores, threshold), name_classes(scores, threshold)
    if len(classes) == 1:
        return f"{name}, {percent(prediction.score)}"
    return f"{name} ({', '.join(percent(scores[one]) for one in classes)})"


def explain_doubt(predictions: Sequence[Prediction], coverage: float | None) -> str:
    """What several named expressions, or "perhaps", mean for this model; empty where every face has a clear answer."""
    unclear = [one for one in predictions if name_expression(one.scores, one.answer_threshold) != one.label]
    if coverage is None or not unclear or unclear[0].answer_threshold is None:
        return ""
    return (
        f"Every expression from {percent(unclear[0].answer_threshold)} on is named; a lone one below that is called "
        f"perhaps. Answers named this way hold the raters' label {percent(coverage)} of the time on pictures like "
        "those the model was adjusted with; on other photos it may be less."
    )


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
