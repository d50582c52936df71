"""The Photo tab: choose, drop, paste or take a picture; its faces with their perceived expressions come back."""

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from fer_hf.demo.calls import answer, first_file
from fer_hf.demo.limits import MEGABYTE, Line
from fer_hf.demo.shelf import Shelf
from fer_hf.demo.uploads import Upload
from fer_hf.image_io import DEFAULT_LIMITS

EXAMPLES = Path(__file__).parent / "examples"
NOTICE = (
    '<div class="fer-notice" role="note"><strong>Before you give a picture.</strong> It is sent to the server this '
    "page comes from, looked at for a moment and forgotten: nothing is kept, nobody else gets it. The answer is the "
    "expression a model <em>perceives</em> in a face, which is not what the person feels. It must not be used for "
    "decisions about people at work, at school or by the police.</div>"
)
_ACCEPT = "image/*,.heic,.heif,.avif,.tif,.tiff,.bmp,.webp,.gif"


def build_photo_tab(shelf: Shelf, line: Line) -> gr.HTML:
    """The tab's one component; the examples are analysed here, once, by the model that will serve."""

    async def analyse(form) -> dict:
        model = str(form.data.get("model", ""))
        return await answer(line, lambda: {"html": shelf.desk(model).show(first_file(form))})

    async def attend(form) -> dict:
        model, target = str(form.data.get("model", "")), str(form.data.get("target", ""))
        return await answer(line, lambda: {"maps": shelf.desk(model).attend(first_file(form), target)})

    examples = [shelf.first.show(Upload(path.name, path.read_bytes())) for path in example_paths()]
    return gr.HTML(
        _page_html(examples),
        js_on_load="fer.photoTab(element, server)",
        server_functions=[analyse, attend],
        elem_id="photo",
        apply_default_css=False,
    )


def example_paths() -> list[Path]:
    """The portraits whose results a cold page shows; both are works of the US government and in the public domain."""
    return [EXAMPLES / "astronaut.jpg", EXAMPLES / "hopper.jpg"]


def _page_html(examples: Sequence[str]) -> str:
    megabytes = DEFAULT_LIMITS.max_bytes // MEGABYTE
    return f"""
<div class="fer" data-max-bytes="{DEFAULT_LIMITS.max_bytes}">
  <div class="fer-ask">
    {NOTICE}
    <div class="fer-drop">
      <input class="fer-file" type="file" id="fer-photo-file" accept="{_ACCEPT}">
      <label class="fer-button fer-primary" for="fer-photo-file">Choose a photo</label>
      <button class="fer-button" type="button" data-camera="open">Use the camera</button>
      <p class="fer-hint">or drop it here, or paste it. JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC or AVIF, up to
        {megabytes} MB.</p>
    </div>
    <div class="fer-camera" hidden>
      <video playsinline muted aria-label="Camera preview"></video>
      <button class="fer-button fer-primary" type="button" data-camera="take">Take the picture</button>
      <button class="fer-button" type="button" data-camera="close">Close the camera</button>
    </div>
    <p class="fer-error" role="alert"></p>
    <p class="fer-progress" role="status"></p>
    <p class="fer-said" role="status"></p>
  </div>
  <div class="fer-answer" tabindex="-1" aria-label="Result">
    <div class="fer-examples"><h2>Two examples</h2><div class="fer-pair">{"".join(examples)}</div></div>
  </div>
</div>"""
