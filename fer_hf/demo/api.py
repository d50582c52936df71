"""The endpoints for programs: /predict, /compare and /batch, with files or data: URLs in and plain data out."""

from collections.abc import Awaitable, Callable

import gradio as gr

from fer_hf.demo.batch import batch_records
from fer_hf.demo.calls import REFUSALS, Needed
from fer_hf.demo.compare import comparison_records
from fer_hf.demo.limits import Line
from fer_hf.demo.shelf import Shelf
from fer_hf.demo.tabs import LARGEST_FILE
from fer_hf.demo.uploads import FilesInput, PhotoInput
from fer_hf.image_io import DEFAULT_LIMITS

PREDICT = (
    "The faces of one photo with the perceived expression of each. Returns an object with file, width, height, model, "
    "faces (a list, largest first, each with label, score, scores, between, box {xmin, ymin, xmax, ymax} in photo "
    "pixels, detection_score, warnings), faces_skipped and notes. A photo without a face has an empty list."
)
COMPARE = (
    "The largest face of one photo through every embedded model. Returns an object with file, models (a list, each "
    "with model, label, scores, elapsed_ms, parameters, file_bytes) and ensemble (label, scores: the mean of the "
    "models named in of, which have the same classes; or null)."
)
BATCH = (
    "Many photos, or zips of photos. Returns a list of what /predict returns, one a photo; one that cannot be read has "
    "an error and no faces."
)


def build_api(shelf: Shelf, line: Line, batch_line: Line) -> None:
    """Add the endpoints to the page that is being built; nothing of them is visible."""

    async def predict(photo, model="") -> dict:
        _require(photo)
        return await _run(line, lambda desk: desk.record(photo), shelf.ready(model))

    async def compare(photo) -> dict:
        _require(photo)
        return await _run(line, lambda desks: comparison_records(shelf.first, desks, photo), shelf.ready_to_compare())

    async def batch(files, model="") -> list:
        _require(files)
        return await _run(batch_line, lambda desk: batch_records(desk, files), shelf.ready(model))

    with gr.Row(visible=False):
        photo = PhotoInput(max_bytes=DEFAULT_LIMITS.max_bytes, label="photo")
        files = FilesInput(max_bytes=LARGEST_FILE, label="files")
        model = gr.Textbox("", label="model: an embedded one or a Hub id; empty for the default")
        out = gr.JSON(label="result")
        for name, work, inputs, text in (
            ("predict", predict, [photo, model], PREDICT),
            ("compare", compare, [photo], COMPARE),
            ("batch", batch, [files, model], BATCH),
        ):
            gr.Button(name).click(work, inputs, out, api_name=name, api_description=text, concurrency_limit=None)


def _require(given: object) -> None:
    if not given:
        raise gr.Error("No picture came with the request; send a file or a data: URL.", print_exception=False)


async def _run(line: Line, work: Callable[[Needed], dict | list], ready: Awaitable[Needed]) -> dict | list:
    try:
        return await line.run(work, await ready)
    except REFUSALS as error:
        raise gr.Error(str(error), print_exception=False) from None
