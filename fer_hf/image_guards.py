"""What stands between hostile files and the libraries that read them: limits, budgets, and parts that are hidden.

Pillow checks sizes late in some formats and believes the counts in most headers, so that a file of kilobytes can take
gigabytes or minutes before `Image.open` returns. `image_io` sends every file through here; see it for the order.
"""

import io
import re
import struct
import time
from dataclasses import dataclass

from PIL import Image, TiffImagePlugin, TiffTags

# Pillow's names. AVIF is asked before HEIF: both accept the brand "mif1", and only AVIF's reader looks inside first.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF")

_MAX_TIFF_VALUES = 200_000  # a 16-bit palette has 196,608; 50 million pixels in tiles of 16x16 have 195,313 offsets


class ImageError(ValueError):
    """A picture that cannot or must not be read; the message is one sentence for the person who gave it."""


@dataclass(frozen=True)
class ImageLimits:
    """What `read_image` accepts: pixels (width times height), bytes of the file, and Pillow's names of formats."""

    max_pixels: int = 50_000_000
    max_bytes: int = 20_000_000
    formats: tuple[str, ...] = FORMATS

    def __post_init__(self):
        unknown = set(self.formats) - set(FORMATS)
        if unknown or not self.formats:
            raise ValueError(f"formats is {self.formats}; name one or more of {FORMATS}.")


def check_size(size: tuple[int, int], name: str, limits: ImageLimits) -> None:
    """Nothing; raises `ImageError` for a width and height without pixels or with too many."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name} is {width} × {height} pixels; give a picture with at least one pixel.")
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name} has {width} × {height} pixels; at most {limits.max_pixels / 1e6:g} million are read; shrink it."
        )


class MeteredBytes(io.BytesIO):
    """A file in memory that will not be read without end.

    Pillow's header parsers trust the counts they find. A thousand tags may point at the same megabytes, a comment may
    come in a hundred thousand blocks that are joined one by one. Honest pictures stay far below each of these budgets.
    """

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.name_in_errors = name
        self.bytes_left = 4 * len(data) + 2**20
        self.reads_left = 500_000
        self.header_deadline = time.thread_time() + 0.5  # processor seconds of this thread, so load does not count

    def end_header(self) -> None:
        self.header_deadline = float("inf")

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.bytes_left -= len(data)
        self.reads_left -= 1
        if min(self.bytes_left, self.reads_left) < 0 or time.thread_time() > self.header_deadline:
            raise ImageError(
                f"{self.name_in_errors} is built so that reading it would take too much time or memory; save it anew."
            )
        return data


def disarm(data: bytes, name: str, limits: ImageLimits) -> bytes:
    """The file without what Pillow would trip over while it opens it, before any of our checks could run."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        # An animated PNG has a canvas filled at once, by the last header chunk before its pixels.
        for header in re.finditer(rb"IHDR(.{8})", data, re.DOTALL):
            if data[header.start() - 4] < 2:  # the length of the chunk before its name: else a chance find in pixels
                check_size(struct.unpack(">II", header[1]), name, limits)
        if b"IEND" not in data:  # Pillow is content as soon as it has all pixels
            raise EOFError("no IEND chunk")
    elif data.startswith(b"\xff\xd8"):
        # EXIF is one segment of at most 64 kB. Pillow joins further ones and parses the whole: megabytes of tags, each
        # with megabytes of values. Within a scan 0xFF is never followed by 0xE1, so no pixel is touched.
        segment = re.compile(rb"(\xff\xe1..)Exif\0\0", re.DOTALL)
        first = segment.search(data)
        if first and segment.search(data, first.end()):
            data = data[: first.end()] + segment.sub(rb"\1exif\0\0", data[first.end() :])
    elif data[4:8] == b"ftyp":
        # HEIC and AVIF are turned by their own boxes, and EXIF orientation must be ignored (MIAF, ISO/IEC 23000-22).
        # Its item may be of any size, so it is hidden: under another type nobody reads it.
        data = re.sub(rb"(infe[\2\3].{7,9})Exif", rb"\1hide", data, flags=re.DOTALL)
    elif data.startswith(tuple(TiffImagePlugin.PREFIXES)):
        _check_tiff_counts(data, name)
    return data


def _check_tiff_counts(data: bytes, name: str) -> None:
    """Refuses a TIFF with a tag of very many numbers: each becomes a Python object, each strip several."""
    order = "<" if data.startswith(b"II") else ">"
    at, place, number, entry = (8, "Q", "Q", "HHQ8x") if data[2] == 43 else (4, "L", "H", "HHL4x")  # 43: BigTIFF
    (start,) = struct.unpack_from(order + place, data, at)
    (entries,) = struct.unpack_from(order + number, data, start)
    for index in range(entries):
        at = start + struct.calcsize(order + number) + index * struct.calcsize(order + entry)
        tag, kind, count = struct.unpack_from(order + entry, data, at)
        if kind not in (TiffTags.BYTE, TiffTags.ASCII, TiffTags.UNDEFINED) and count > _MAX_TIFF_VALUES:
            raise ImageError(f"{name} has {count} values in TIFF tag {tag}; save it anew with fewer strips or tiles.")


def disarm_opened_tiff(image: Image.Image, name: str, limits: ImageLimits) -> None:
    """Checks the size of one tile, for which libtiff makes room whatever the picture's size, and hides sub-directories.

    Pillow would read EXIF, GPS and the like when it loads the pixels, again as one Python object a value.
    """
    tile = tuple(image.tag_v2.get(tag, 1) for tag in (322, 323))  # TileWidth, TileLength
    check_size(tile, f"{name}, in one tile,", limits)
    exif = image.getexif()
    for tag in TiffTags.TAGS_V2_GROUPS:
        exif.pop(tag, None)
