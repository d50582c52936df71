"""The Photo tab: choose, drop, paste or take a picture; its faces with their perceived expressions come back."""

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from fer_hf.demo.calls import answer_of, first_file
from fer_hf.demo.limits import MEGABYTE, Line
from fer_hf.demo.shelf import Shelf
from fer_hf.demo.tabs import NOTICE, STATUS, drop_zone, frame, tab_component
from fer_hf.demo.uploads import Upload
from fer_hf.image_io import DEFAULT_LIMITS

EXAMPLES = Path(__file__).parent / "examples"


def build_photo_tab(shelf: Shelf, line: Line) -> gr.HTML:
    """The tab's one component; the examples are analysed here, once, by the model that will serve."""

    async def analyse(form) -> dict:
        model = str(form.data.get("model", ""))
        return await answer_of(shelf.ready(model), line, lambda desk: {"html": desk.show(first_file(form))})

    async def attend(form) -> dict:
        model, target = str(form.data.get("model", "")), str(form.data.get("target", ""))
        return await answer_of(shelf.ready(model), line, lambda desk: {"maps": desk.attend(first_file(form), target)})

    examples = [shelf.first.show(Upload(path.name, path.read_bytes())) for path in example_paths()]
    return tab_component("photo", _page_html(examples), "fer.photoTab(element, server)", [analyse, attend])


def example_paths() -> list[Path]:
    """The portraits whose results a cold page shows; both are works of the US government and in the public domain."""
    return [EXAMPLES / "astronaut.jpg", EXAMPLES / "hopper.jpg"]


def _page_html(examples: Sequence[str]) -> str:
    limit = DEFAULT_LIMITS.max_bytes
    hint = f"or drop it here, or paste it. JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC or AVIF, up to {limit // MEGABYTE} MB."
    camera = '<button class="fer-button" type="button" data-camera="open">Use the camera</button>'
    shown = f'<div class="fer-examples"><h2>Two examples</h2><div class="fer-pair">{"".join(examples)}</div></div>'
    ask = NOTICE + drop_zone("photo", "Choose a photo", hint, more=camera) + _CAMERA + STATUS
    return frame(ask, shown, answer_label="Result", max_bytes=limit)


_CAMERA = """<div class="fer-camera" hidden><video playsinline muted aria-label="Camera preview"></video>
  <button class="fer-button fer-primary" type="button" data-camera="take">Take the picture</button>
  <button class="fer-button" type="button" data-camera="close">Close the camera</button></div>"""
