"""Pictures of results on Pillow and numpy: boxes and labels, probability bars, heat maps over crops and photos."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_hf.faces import Box, Prediction

ACCENT_RGB = (13, 148, 136)
INK_RGB = (17, 24, 39)
PAPER_RGB = (255, 255, 255)
TRACK_RGB = (226, 232, 240)

# Seven anchors of the inferno colour map (Smith and van der Walt, CC0): dark to light, readable without colour vision.
_INFERNO = np.array(
    [(0, 0, 4), (51, 10, 95), (120, 28, 109), (188, 55, 84), (237, 105, 37), (251, 180, 26), (252, 255, 164)],
    dtype=np.float64,
)


def percent(score: float) -> str:
    """A probability as people read it: ``97%``; never 100% or 0%, which no model can know.

    ``percent(0.996)`` is ``>99%``, ``percent(0.002)`` is ``<1%``.
    """
    if score >= 0.995:
        return ">99%"
    if score < 0.005:
        return "<1%"
    return f"{score * 100:.0f}%"


def draw_faces(photo: Image.Image, predictions: Sequence[Prediction]) -> Image.Image:
    """A copy of the RGB photo with a box around each face and its label and probability above it.

    Predictions without a face (pictures that were crops already) are passed over. Lines and letters grow with the
    photo, letters shrink with the box so that the labels of a crowd stay apart.
    """
    canvas = photo.convert("RGB")
    canvas = canvas.copy() if canvas is photo else canvas
    draw = ImageDraw.Draw(canvas)
    line_px = max(2, round(max(photo.size) / 320))
    for prediction in predictions:
        if prediction.face is None:
            continue
        box = prediction.face.box_xyxy
        draw.rectangle(box, outline=PAPER_RGB, width=line_px + 2)
        draw.rectangle(_inset(box, 1), outline=ACCENT_RGB, width=line_px)
        _draw_label(draw, f"{prediction.label} {percent(prediction.score)}", box, photo.size)
    return canvas


def _inset(box: Box, by_px: float) -> Box:
    """The box shrunk by some pixels on each side, as long as it has room."""
    if min(box[2] - box[0], box[3] - box[1]) <= 2 * by_px:
        return box
    return (box[0] + by_px, box[1] + by_px, box[2] - by_px, box[3] - by_px)


def _draw_label(draw: ImageDraw.ImageDraw, text: str, box: Box, photo_wh: tuple[int, int]) -> None:
    largest = max(12, round(max(photo_wh) / 40))
    font = ImageFont.load_default(float(np.clip((box[2] - box[0]) / 5, 10, largest)))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    pad = max(2, round(font.size / 5))
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = float(np.clip(box[0], 0, max(photo_wh[0] - width, 0)))
    above = box[1] - height
    y = above if above >= 0 else float(np.clip(box[1], 0, max(photo_wh[1] - height, 0)))
    draw.rectangle((x, y, x + width, y + height), fill=ACCENT_RGB)
    draw.text((x + pad - left, y + pad - top), text, fill=PAPER_RGB, font=font)


def draw_bars(scores: Mapping[str, float], width_px: int = 320, row_px: int = 24) -> Image.Image:
    """Horizontal bars, one row a class in the mapping's order, the largest in the accent colour."""
    canvas = Image.new("RGB", (width_px, row_px * len(scores)), PAPER_RGB)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(row_px * 0.55)
    names_px = max(draw.textlength(name, font=font) for name in scores) + row_px / 2
    figures_px = draw.textlength("<100%", font=font)
    track_px = max(width_px - names_px - figures_px - row_px / 4, 1)
    best = max(scores, key=scores.get)
    for row, (name, score) in enumerate(scores.items()):
        middle = (row + 0.5) * row_px
        draw.text((0, middle), name, fill=INK_RGB, font=font, anchor="lm")
        draw.text((width_px, middle), percent(score), fill=INK_RGB, font=font, anchor="rm")
        half = row_px * 0.3
        draw.rectangle((names_px, middle - half, names_px + track_px, middle + half), fill=TRACK_RGB)
        if score > 0:
            colour = ACCENT_RGB if name == best else tuple(np.add(ACCENT_RGB, TRACK_RGB) // 2)
            draw.rectangle((names_px, middle - half, names_px + track_px * score, middle + half), fill=colour)
    return canvas


def colour_heat(heat_map: np.ndarray) -> np.ndarray:
    """Inferno colours (..., 3) uint8 of values in [0, 1]; values outside are clipped."""
    position = np.clip(heat_map, 0, 1) * (len(_INFERNO) - 1)
    below = np.minimum(position.astype(int), len(_INFERNO) - 2)
    part = (position - below)[..., None]
    return np.round(_INFERNO[below] * (1 - part) + _INFERNO[below + 1] * part).astype(np.uint8)


def heat_image(heat_map: np.ndarray, size_px: int) -> Image.Image:
    """An RGBA square of a map (h, w) in [0, 1]: inferno colours, more opaque where the value is larger.

    Laid over a crop at any opacity it hides nothing where the map is zero.
    """
    smooth = np.clip(_resize_map(heat_map, (size_px, size_px)), 0, 1)
    alpha = np.round(255 * smooth**0.7).astype(np.uint8)
    return Image.fromarray(np.dstack([colour_heat(smooth), alpha]))


def overlay_heat(image: Image.Image, heat_map: np.ndarray, opacity: float = 0.6) -> Image.Image:
    """The RGB image with a map (h, w) in [0, 1] blended over it; the map is stretched to the image.

    For a crop give the crop's map; for a whole photo give it through ``attention.warp_to_photo`` first. ``opacity`` in
    [0, 1] is that of the map's maximum.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity}; give a number from 0 to 1")
    heat = np.clip(_resize_map(heat_map, image.size), 0, 1)
    weight = (opacity * heat**0.7)[..., None]
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64)
    return Image.fromarray(np.round(pixels * (1 - weight) + colour_heat(heat) * weight).astype(np.uint8))


def _resize_map(heat_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if heat_map.ndim != 2:
        raise ValueError(f"a heat map is (h, w); this array has shape {heat_map.shape}")
    picture = Image.fromarray(np.asarray(heat_map, dtype=np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC), dtype=np.float64)


def draw_gates(gates: np.ndarray, width_px: int = 256, height_px: int = 24) -> Image.Image:
    """A strip of channel gates (C,) in [0, 1], one column a channel in network order, inferno colours."""
    if gates.ndim != 1:
        raise ValueError(f"channel gates are (C,); this array has shape {gates.shape}")
    row = Image.fromarray(colour_heat(gates)[None])
    return row.resize((width_px, height_px), Image.Resampling.NEAREST)
