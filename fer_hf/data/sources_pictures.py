"""Pictures as they are stored in a data set: upright, in a format every decoder knows, and without metadata.

A file that is already so is kept byte for byte, which only its structure decides: every segment or chunk must be one
that holds pixels or is needed to decode them. EXIF (places, times, devices), comments, colour profiles, previews and
anything after the end of the picture are thereby gone from what is kept. The rest is decoded and encoded again: as JPEG
of quality 95 where it was a JPEG, else losslessly as PNG.
"""

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from fer_hf.image_io import read_image

JPEG_QUALITY = 95
_JPEG_SEGMENTS = frozenset([0xDB, 0xC4, 0xDD, 0xE0, 0xEE, 0xC0, 0xC1, 0xC2])  # DQT DHT DRI JFIF Adobe SOF0 SOF1 SOF2
_JPEG_SIGNED = {0xE0: (b"JFIF", 16), 0xEE: (b"Adobe", 14)}  # a longer segment holds more: JFIF's may have a preview
_PNG_CHUNKS = frozenset([b"IHDR", b"PLTE", b"IDAT", b"IEND", b"pHYs", b"sRGB"])


def stored_picture(picture: Path | bytes | np.ndarray, max_side_px: int | None = None) -> tuple[bytes, str]:
    """Encoded bytes of an upright picture without metadata, and the format that it came in.

    ``picture`` is a file, the bytes of one, or pixels (H, W) uint8. With ``max_side_px`` a larger one is made smaller.
    Raises ImageError, a ValueError, for what is no picture that can be read.
    """
    if isinstance(picture, np.ndarray):
        return _encoded(Image.fromarray(picture), "PNG"), "pixels"
    photo = read_image(picture)
    is_large = max_side_px is not None and max(photo.image.size) > max_side_px
    data = picture if isinstance(picture, bytes) else picture.read_bytes()
    if not is_large and is_bare(data):
        return data, photo.format
    if is_large:
        photo.image.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    return _encoded(photo.image, "JPEG" if photo.format == "JPEG" else "PNG"), photo.format


def is_bare(data: bytes) -> bool:
    """Whether a file is a JPEG, PNG or WebP, grey or RGB of 8 bits, that holds nothing but its pixels."""
    if data.startswith(b"\xff\xd8"):
        return _is_bare_jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _is_bare_png(data)
    return _is_bare_webp(data)


def _is_bare_jpeg(data: bytes) -> bool:
    position, components = 2, 0
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4])
        if marker == 0xDA:  # the scans: nothing but more of them and their tables may come before the end
            return components in (1, 3) and _scans_end_file(data, position)
        signature, known_length = _JPEG_SIGNED.get(marker, (b"", length))
        is_known = data.startswith(signature, position + 4) and length == known_length
        if marker not in _JPEG_SEGMENTS or not is_known:
            return False
        if 0xC0 <= marker <= 0xC2:
            components = data[position + 9] if position + 9 < len(data) else 0
        position += 2 + length
    return False


def _scans_end_file(data: bytes, position: int) -> bool:
    while (position := data.find(b"\xff", position)) >= 0 and position + 2 <= len(data):
        marker = data[position + 1]
        if marker == 0xD9:
            return position + 2 == len(data)
        is_pixels = marker == 0x00 or 0xD0 <= marker <= 0xD7  # a stuffed byte, a restart
        if not is_pixels and marker not in (0xDA, 0xC4, 0xDB, 0xDD):
            return False
        position += 2 if is_pixels else 2 + int.from_bytes(data[position + 2 : position + 4])
    return False


def _is_bare_png(data: bytes) -> bool:
    position, kind = 8, b""
    while position + 12 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        if kind not in _PNG_CHUNKS:
            return False
        if kind == b"IHDR" and (data[position + 16] != 8 or data[position + 17] not in (0, 2)):  # depth; grey or RGB
            return False
        position += 12 + length
    return kind == b"IEND" and position == len(data)


def _is_bare_webp(data: bytes) -> bool:
    """A simple file: one chunk of pixels, which in the lossless kind carries no alpha (a bit of its header)."""
    if len(data) < 25 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return False
    (length,) = struct.unpack("<I", data[16:20])
    is_whole = 20 + length + length % 2 == len(data)
    is_opaque = data[12:16] == b"VP8 " or (data[12:16] == b"VP8L" and not data[24] & 0x10)
    return is_whole and is_opaque


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    options = {"quality": JPEG_QUALITY, "subsampling": 0} if kind == "JPEG" else {"compress_level": 4}
    image.save(buffer, kind, **options)
    return buffer.getvalue()
