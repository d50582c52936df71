"""The Compare tab: the same face through every embedded model, and the mean of them all."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import gradio as gr
import numpy as np

from fer_hf.demo.calls import answer_of, first_file
from fer_hf.demo.desk import Desk
from fer_hf.demo.limits import MEGABYTE, Line, Refused
from fer_hf.demo.markup import HEAT_PX, bars_html, data_url
from fer_hf.demo.shelf import Shelf
from fer_hf.demo.tabs import NOTICE, STATUS, drop_zone, frame, placeholder, tab_component
from fer_hf.demo.uploads import Upload
from fer_hf.demo.wording import name_expression, summarise
from fer_hf.faces import AlignedFace
from fer_hf.hub import weights_bytes
from fer_hf.image_io import DEFAULT_LIMITS, read_image
from fer_hf.recognition import GRAD_CAM
from fer_hf.rendering import heat_image

TIMED_RUNS = 3
ENSEMBLE = "fer_ensemble"


@dataclass(frozen=True)
class Opinion:
    """What one model makes of a face: probabilities, its own crop, Grad-CAM where it has it, milliseconds, sizes."""

    name: str
    scores: dict[str, float]
    answer_threshold: float | None
    aligned: AlignedFace
    cam: np.ndarray | None
    elapsed_ms: float
    parameters: int | None
    file_bytes: int | None


def build_compare_tab(shelf: Shelf, line: Line) -> gr.HTML:
    """The tab's one component."""

    async def compare(form) -> dict:
        def show(desks: Sequence[Desk]) -> dict:
            return {"html": show_comparison(shelf.first, desks, first_file(form))}

        return await answer_of(shelf.ready_to_compare(), line, show)

    return tab_component("compare", _page_html(shelf), "fer.compareTab(element, server)", [compare])


@dataclass(frozen=True)
class Mean:
    """The mean probability of each class, and who counts into it or does not."""

    scores: dict[str, float]
    of: tuple[str, ...]
    without: tuple[str, ...]


def ask_all(first: Desk, desks: Sequence[Desk], upload: Upload) -> tuple[list[Opinion], Mean | None]:
    """Every model's opinion on the photo's largest face, which the first finds, and the mean of those alike.

    Ensembles are means already and do not count into that, nor do models that lack a class of the first one: what they
    cannot say would count against it. It is None for fewer than two others. Raises Refused where the photo has no
    face.
    """
    photo = read_image(upload.data).image
    faces = first.recognizer.find_faces(photo).faces
    if not faces:
        raise Refused(summarise([], photo.size))
    opinions = [_ask(desk, desk.recognizer.align(photo, faces[0])) for desk in desks]
    single = [one for desk, one in zip(desks, opinions, strict=True) if desk.kind() != ENSEMBLE]
    return opinions, mean_of(single, first.recognizer.labels)


def mean_of(opinions: Sequence[Opinion], classes: Sequence[str]) -> Mean | None:
    """The mean over the opinions that have just these classes; None for fewer than two of them."""
    alike = [one for one in opinions if set(one.scores) == set(classes)]
    if len(alike) < 2:
        return None
    scores = {name: float(np.mean([one.scores[name] for one in alike])) for name in classes}
    return Mean(scores, tuple(one.name for one in alike), tuple(one.name for one in opinions if one not in alike))


def _ask(desk: Desk, aligned: AlignedFace) -> Opinion:
    elapsed = []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        scores = desk.score([aligned.crop])[0]
        elapsed.append(1000 * (time.perf_counter() - start))
    return Opinion(
        name=desk.model_name,
        scores=scores,
        answer_threshold=desk.recognizer.answer_threshold,
        aligned=aligned,
        cam=desk.attention_of([aligned.crop])[0].get(GRAD_CAM),
        elapsed_ms=statistics.median(elapsed),
        parameters=desk.count_parameters(),
        file_bytes=_weights_bytes(desk.folder),
    )


def _weights_bytes(folder: Path | None) -> int | None:
    return None if folder is None else weights_bytes(folder)


def comparison_records(first: Desk, desks: Sequence[Desk], upload: Upload) -> dict:
    """The comparison as plain data, for the API."""
    opinions, mean = ask_all(first, desks, upload)
    models = [
        {
            "model": one.name,
            "label": max(one.scores, key=one.scores.get),
            "scores": one.scores,
            "elapsed_ms": round(one.elapsed_ms, 2),
            "parameters": one.parameters,
            "file_bytes": one.file_bytes,
        }
        for one in opinions
    ]
    ensemble = mean and {"label": max(mean.scores, key=mean.scores.get), "scores": mean.scores, "of": list(mean.of)}
    return {"file": upload.name, "models": models, "ensemble": ensemble}


def show_comparison(first: Desk, desks: Sequence[Desk], upload: Upload) -> str:
    """A card a model, and one for their mean."""
    opinions, mean = ask_all(first, desks, upload)
    cards = [_card(one.name, one.scores, _facts(one), _pictures(one), one.answer_threshold) for one in opinions]
    if mean is not None:
        facts = f"of {len(mean.of)} models, equal weights; ensembles do not count twice"
        if mean.without:
            facts += f"; without {escape(', '.join(mean.without))}, which has other classes"
        cards.insert(0, _card("Mean", mean.scores, facts, ""))
    agreed = len({max(one.scores, key=one.scores.get) for one in opinions}) == 1
    verdict = "" if len(opinions) < 2 else "They agree." if agreed else "They do not agree."
    noun = "model" if len(opinions) == 1 else "models"
    summary = f"The largest face of {upload.name}, seen by {len(opinions)} {noun}. {verdict}"
    return f'<p class="fer-summary">{escape(summary)}</p><div class="fer-cards">{"".join(cards)}</div>'


def _card(name: str, scores: dict[str, float], facts: str, pictures: str, answer_threshold: float | None = None) -> str:
    return (
        f'<article class="fer-result"><h3>{escape(name)}</h3><p class="fer-note">{facts}</p>{pictures}'
        f'<p class="fer-summary">{escape(name_expression(scores, answer_threshold))}</p>{bars_html(scores)}</article>'
    )


def _facts(opinion: Opinion) -> str:
    facts = [f"{opinion.elapsed_ms:.1f} ms a face"]
    if opinion.parameters is not None:
        facts.append(f"{opinion.parameters / 1e6:.1f} M parameters")
    if opinion.file_bytes is not None:
        facts.append(f"{opinion.file_bytes / MEGABYTE:.1f} MB")
    return " · ".join(facts)


def _pictures(opinion: Opinion) -> str:
    crop = opinion.aligned.crop
    heat = "" if opinion.cam is None else f'<img src="{data_url(heat_image(opinion.cam, HEAT_PX), "PNG")}" alt="">'
    return (
        f'<div class="fer-crop fer-still"><img src="{data_url(crop, "JPEG", quality=90)}" '
        f'alt="The face as this model sees it">{heat.replace("<img", "<img class=fer-crop-heat", 1)}</div>'
    )


def _page_html(shelf: Shelf) -> str:
    names = ", ".join(escape(name) for name in shelf.folders) or escape(shelf.first.model_name)
    drop = drop_zone(
        "compare", "Choose a photo", f"or drop it here, or paste it. Its largest face goes through: {names}."
    )
    text = (
        "Every model of this project side by side appears here: what each perceives, where it looked, how "
        "large it is and "
        "how long it took; and their mean."
    )
    limit = DEFAULT_LIMITS.max_bytes
    return frame(NOTICE + drop + STATUS, placeholder(text), answer_label="Comparison", max_bytes=limit)
