"""Uploads as bytes: input components that decode nothing, fetch nothing and leave no file behind."""

import base64
import binascii
import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import route_utils
from gradio.data_classes import FileData, ImageData
from gradio.utils import get_upload_folder
from pydantic import PrivateAttr

from fer_hf.demo.limits import MEGABYTE


@dataclass(frozen=True)
class Upload:
    """One file as it was sent: the name its owner gave it, without folders, and its bytes.

    ``fault`` says why there are no bytes, where it came in a zip and could not be taken out.
    """

    name: str
    data: bytes
    fault: str = ""


class _UniqueUpload(route_utils.GradioUploadFile):
    """A file of Gradio's upload route that gets a folder of its own.

    Gradio names the folder by the content, so two visitors who send the same file at the same moment would share one
    copy, and the first to be answered would delete the other's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sha.update(uuid.uuid4().bytes)


MAX_NAME = 255


def keep_uploads_apart() -> None:
    """Make Gradio's upload route store every file in a folder of its own."""
    route_utils.GradioUploadFile = _UniqueUpload


def safe_name(name: str | None, default: str = "photo") -> str:
    """The last part of a file name as the visitor knows it, never empty; of a very long one its begin and its end."""
    last = Path((name or "").replace("\\", "/")).name
    return (last if len(last) <= MAX_NAME else last[: MAX_NAME - 40] + last[-40:]) or default


def take_file(path: str, name: str | None, max_bytes: int) -> Upload:
    """The bytes of an uploaded file, which is deleted. Raises gr.Error for a path that no visitor uploaded."""
    file = Path(path).resolve()
    if not file.is_relative_to(Path(get_upload_folder()).resolve()) or not file.is_file():
        raise gr.Error("The uploaded file is no longer there; please send it again.", print_exception=False)
    try:
        if file.stat().st_size > max_bytes:
            raise gr.Error(
                f"{safe_name(name)} is larger than {max_bytes // MEGABYTE} MB; please send a smaller file.",
                print_exception=False,
            )
        return Upload(safe_name(name or file.name), file.read_bytes())
    finally:
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty where Gradio put two files of one request
            file.parent.rmdir()


def decode_data_url(url: str) -> bytes:
    """The bytes of a base64 ``data:`` URL. Raises gr.Error where it is not one."""
    head, _, body = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise gr.Error("The picture's data: URL is not base64; send data:image/…;base64,….", print_exception=False)
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise gr.Error(
            "The picture's data: URL holds broken base64; please send it again.", print_exception=False
        ) from None


class _NothingFetched:
    """Refuses links where Gradio would fetch them, and leaves uploads where they are."""

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        if url_or_file_path is not None and "://" in str(url_or_file_path):
            raise gr.Error("Links are not fetched; please send the file itself.", print_exception=False)
        return None if url_or_file_path is None else str(url_or_file_path)


class PhotoData(ImageData):
    """A picture on its way in; the bytes of a ``data:`` URL are kept out of what Gradio stores for the session."""

    _inline: str | None = PrivateAttr(None)

    def model_post_init(self, context: Any) -> None:
        if self.url and self.url.startswith("data:"):
            self._inline, self.url = self.url, None


class PhotoInput(_NothingFetched, gr.Image):
    """An image input that hands its bytes on undecoded: ``image_io`` is the only decoder of what visitors send."""

    data_model = PhotoData

    def __init__(self, *args: Any, max_bytes: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_bytes = max_bytes

    def get_block_name(self) -> str:
        return "image"

    def preprocess(self, payload: PhotoData | None) -> Upload | None:
        if payload is None:
            return None
        if payload._inline is not None:
            data = decode_data_url(payload._inline)
            if len(data) > self.max_bytes:
                raise gr.Error(f"The picture is larger than {self.max_bytes // MEGABYTE} MB.", print_exception=False)
            return Upload(safe_name(payload.orig_name), data)
        if payload.path is None:
            raise gr.Error("No picture came with the request; send a file or a data: URL.", print_exception=False)
        return take_file(payload.path, payload.orig_name, self.max_bytes)


class FilesInput(_NothingFetched, gr.File):
    """A file input for several files, handed on as bytes."""

    def __init__(self, *args: Any, max_bytes: int, **kwargs: Any) -> None:
        super().__init__(*args, file_count="multiple", **kwargs)
        self.max_bytes = max_bytes

    def get_block_name(self) -> str:
        return "file"

    def preprocess(self, payload: Any) -> list[Upload]:
        if payload is None:
            return []
        files: Sequence[FileData] = getattr(payload, "root", payload)
        return [take_file(file.path, file.orig_name, self.max_bytes) for file in files]
