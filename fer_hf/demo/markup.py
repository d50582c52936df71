"""HTML of results: the photo with its faces, a row a face, probability bars. Every foreign string is escaped."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from fer_hf.demo.wording import describe_face, name_expression, warn_about_face
from fer_hf.faces import Prediction, invert_affine
from fer_hf.rendering import draw_gates, heat_image, percent

SHOWN_PHOTO_PX = 1280
"""The longer side of the photo that is sent back to the page."""
CROWD = 8
"""From more faces than this on, labels on the photo are small and without figures."""
HEAT_PX = 96


@dataclass(frozen=True)
class ResultView:
    """What one analysed photo puts on the page."""

    photo: Image.Image
    alt: str
    predictions: Sequence[Prediction]
    summary: str
    notes: Sequence[str]
    record: Mapping
    csv: str


def data_url(image: Image.Image, kind: str = "JPEG", **options: int | bool) -> str:
    """The picture as a ``data:`` URL, so that showing it needs no file and no further request."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def photo_url(photo: Image.Image) -> str:
    """The photo as every browser can show it, at most ``SHOWN_PHOTO_PX`` on its longer side, without metadata."""
    shown = photo.convert("RGB")
    shown.thumbnail((SHOWN_PHOTO_PX, SHOWN_PHOTO_PX), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return data_url(shown, "JPEG", quality=85)


def result_html(view: ResultView) -> str:
    """One analysed photo: summary, photo with boxes, tools, and a row a face."""
    record = escape(json.dumps(view.record), quote=True)
    rows = "".join(_face_row(number, one) for number, one in enumerate(view.predictions))
    notes = "".join(f'<p class="fer-note">{escape(note)}</p>' for note in view.notes)
    layout = _layout(view.photo.size, len(view.predictions))
    classes = list(view.predictions[0].scores) if view.predictions else []
    return (
        f'<section class="fer-result {layout}" data-model="{escape(view.record["model"], quote=True)}" '
        f'data-record="{record}" data-csv="{escape(view.csv, quote=True)}">'
        f'<p class="fer-summary">{escape(view.summary)}</p>{notes}'
        f'<div class="fer-split">{_stage(view)}<div class="fer-faces" role="group" aria-label="Faces">{rows}</div>'
        f"{_tools(view.predictions, classes)}</div></section>"
    )


def _layout(photo_wh: tuple[int, int], faces: int) -> str:
    """Class that puts the faces beside the photo where it is tall and they are few, else below it."""
    if faces == 0:
        return "fer-alone"
    if faces > CROWD:
        return "fer-below fer-many"
    return "fer-below" if faces > 3 or photo_wh[0] > 1.2 * photo_wh[1] else "fer-beside"


def _stage(view: ResultView) -> str:
    width, height = view.photo.size
    crowd = " fer-crowd" if len(view.predictions) > CROWD else ""
    heats = "".join(_heat_slot(number, one) for number, one in enumerate(view.predictions))
    boxes = "".join(_box(number, one, view.photo.size, bool(crowd)) for number, one in enumerate(view.predictions))
    return (
        f'<div class="fer-stage{crowd}" style="--ratio:{width / height:.5f}">'
        f'<img src="{photo_url(view.photo)}" alt="{escape(view.alt, quote=True)}" width="{width}" height="{height}">'
        f'<svg class="fer-heat" viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">'
        f"{heats}</svg>"
        f"{boxes}</div>"
    )


def _heat_slot(number: int, prediction: Prediction) -> str:
    """An empty picture in the photo's own geometry: its transform takes crop pixels to photo pixels."""
    (a, c, e), (b, d, f) = invert_affine(prediction.aligned.photo_to_crop)
    side = prediction.aligned.crop.width
    return (
        f'<image data-face="{number}" width="{side}" height="{side}" preserveAspectRatio="none" '
        f'transform="matrix({a:.6g} {b:.6g} {c:.6g} {d:.6g} {e:.6g} {f:.6g})"/>'
    )


def _box(number: int, prediction: Prediction, photo_wh: tuple[int, int], crowd: bool) -> str:
    x0, y0, x1, y1 = np.clip(prediction.face.box_xyxy, 0, (*photo_wh, *photo_wh))
    left, width = 100 * x0 / photo_wh[0], 100 * (x1 - x0) / photo_wh[0]
    top, height = 100 * y0 / photo_wh[1], 100 * (y1 - y0) / photo_wh[1]
    low = " fer-low" if top < 8 else ""
    right = " fer-right" if left > 60 else ""
    label = _short_label(prediction) if crowd else _label(prediction)
    return (
        f'<button type="button" class="fer-box{low}{right}" data-face="{number}" aria-pressed="false" '
        f'style="left:{left:.3f}%;top:{top:.3f}%;width:{width:.3f}%;height:{height:.3f}%" '
        f'aria-label="Face {number + 1}: {escape(describe_face(prediction), quote=True)}">'
        f"<span>{escape(label)}</span></button>"
    )


def _label(prediction: Prediction) -> str:
    name = name_expression(prediction.scores, prediction.answer_threshold)
    return name if " or " in name else f"{name} {percent(prediction.score)}"


def _short_label(prediction: Prediction) -> str:
    """The top label, with a question mark where it does not stand alone: a crowd has no room for more."""
    name = name_expression(prediction.scores, prediction.answer_threshold)
    return prediction.label if name == prediction.label else f"{prediction.label}?"


def _face_row(number: int, prediction: Prediction) -> str:
    warnings = "".join(
        f'<p class="fer-warning">{escape(text)}</p>' for text in warn_about_face(prediction.face, prediction.aligned)
    )
    maps = escape(json.dumps({prediction.label: map_views(prediction.attention or {})}), quote=True)
    crop = data_url(prediction.aligned.crop, "PNG")
    return (
        f'<article class="fer-face" data-face="{number}" data-label="{escape(prediction.label)}" data-maps="{maps}">'
        f'<button type="button" class="fer-crop" data-face="{number}" aria-pressed="false" '
        f'aria-label="Choose face {number + 1}"><img src="{crop}" alt=""><img class="fer-crop-heat" alt=""></button>'
        f'<div class="fer-face-text"><h3>Face {number + 1}: {escape(describe_face(prediction))}</h3>{warnings}'
        f'{bars_html(prediction.scores)}<img class="fer-gates" alt="" hidden></div></article>'
    )


def bars_html(scores: Mapping[str, float]) -> str:
    """Every class with its probability, the most likely first."""
    rows = []
    for rank, name in enumerate(sorted(scores, key=scores.get, reverse=True)):
        top = ' class="fer-top"' if rank == 0 else ""
        rows.append(
            f'<li{top}><span class="fer-name">{escape(name)}</span>'
            f'<span class="fer-track"><i style="width:{100 * scores[name]:.1f}%"></i></span>'
            f'<span class="fer-figure">{percent(scores[name])}</span></li>'
        )
    return f'<ul class="fer-bars">{"".join(rows)}</ul>'


def map_views(attention: Mapping[str, np.ndarray]) -> list[dict[str, str]]:
    """Attention of one face for the page: name, title, kind (``map``, or ``gates`` for a strip) and picture."""
    views = []
    for name, values in attention.items():
        is_map = values.ndim == 2
        picture = heat_image(values, HEAT_PX) if is_map else draw_gates(values)
        kind = "map" if is_map else "gates"
        views.append({"name": name, "title": attention_title(name), "kind": kind, "url": data_url(picture, "PNG")})
    return views


_ATTENTION_KINDS = {"grad_cam": "Grad-CAM", "se": "SE gates", "cbam.channel": "CBAM gates", "cbam.spatial": "CBAM map"}


def attention_title(name: str) -> str:
    """What a visitor reads for a map's name.

    >>> attention_title("stage2.block1.cbam.spatial")
    'CBAM map, stage 2, block 1'
    """
    parts = name.split(".")
    places = [part for part in parts if part.rstrip("0123456789") in ("stage", "block")]
    kind = ".".join(part for part in parts if part not in places)
    words = [place.rstrip("0123456789") + " " + place.lstrip("abcdefghijklmnopqrstuvwxyz") for place in places]
    return ", ".join([_ATTENTION_KINDS.get(kind, kind.replace("_", " ")), *words])


def _tools(predictions: Sequence[Prediction], classes: Sequence[str]) -> str:
    if not predictions:
        return ""
    expressions = "".join(f"<option>{escape(name)}</option>" for name in classes)
    looks = any(one.attention for one in predictions)
    attention = (
        "<label>Where it looked <select data-kind></select></label>"
        f'<label class="fer-target">for <select data-expression>{expressions}</select></label>'
        '<label>Strength <input type="range" data-opacity min="0" max="100" value="60"></label>'
    )
    return (
        f'<div class="fer-tools">{attention if looks else ""}<span class="fer-save"><span>Download</span>'
        '<button type="button" data-save="png">Picture</button><button type="button" data-save="json">JSON</button>'
        '<button type="button" data-save="csv">CSV</button></span></div>'
    )
