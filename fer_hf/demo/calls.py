"""Calls from the page's script: what they carry, and how refusals come back as one sentence."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from gradio.data_classes import DataWithFiles

from fer_hf.demo.limits import Line, Refused
from fer_hf.demo.uploads import Upload, safe_name
from fer_hf.hub import ModelError
from fer_hf.image_io import ImageError
from fer_hf.video import VideoError

Needed = TypeVar("Needed")

REFUSALS = (ImageError, ModelError, Refused, VideoError)
"""Exceptions whose message is one sentence for the visitor."""


def files_of(form: DataWithFiles) -> list[Upload]:
    """The files of a multipart call. Raises Refused where there is none."""
    files = getattr(form, "files", None)
    if not files:
        raise Refused("No file came with the request; please choose one.")
    return [Upload(safe_name(name), data) for name, data in files]


def first_file(form: DataWithFiles) -> Upload:
    """The first file of a multipart call. Raises Refused where there is none."""
    return files_of(form)[0]


async def answer_of(ready: Awaitable[Needed], line: Line, work: Callable[[Needed], dict]) -> dict:
    """The result of work on what must be ready before it enters the line, such as a desk; else as ``answer``."""
    try:
        return await line.run(work, await ready)
    except REFUSALS as error:
        return {"error": str(error)}


async def answer(line: Line, work: Callable[[], dict]) -> dict:
    """The result of the work, or its one sentence of refusal, for the page to show."""
    try:
        return await line.run(work)
    except REFUSALS as error:
        return {"error": str(error)}
