"""Pictures from anywhere as upright RGB, or one `ImageError` that says in a sentence what is wrong.

This is the project's only decoder of untrusted input. What it promises holds for hostile files too: the size is known
from the header before any pixel is decoded, a file cannot make a parser read or build without end (`image_guards`),
truncated data is refused, and no other exception than `ImageError` leaves.
"""

import io
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pillow_heif
from PIL import ExifTags, Image, ImageCms

from .image_guards import FORMATS, ImageError, ImageLimits, MeteredBytes, check_size, disarm, disarm_opened_tiff

__all__ = ["DEFAULT_LIMITS", "FORMATS", "ImageError", "ImageLimits", "Photo", "read_image"]

pillow_heif.register_heif_opener()

_UPRIGHT = {  # EXIF orientation -> what turns the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_GREY16_TO_8 = ((np.arange(2**16) + 128) // 257).astype(np.uint8)  # 65535 -> 255, rounded to nearest
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and one of its values
_LINK_SCHEME = re.compile("data(?=:[^,]*,)|[a-z][a-z0-9+.-]+(?=:/)", re.IGNORECASE)  # not the one letter of a drive
_ICC_SPACE = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


@dataclass(frozen=True)
class Photo:
    """A decoded picture: RGB, upright, without metadata; the format it had; remarks for the person who gave it."""

    image: Image.Image
    format: str | None  # one of FORMATS, whatever the file's name says; None for arrays
    notes: tuple[str, ...]


DEFAULT_LIMITS = ImageLimits()


def read_image(
    source: str | os.PathLike | bytes | BinaryIO | Image.Image | np.ndarray, *, limits: ImageLimits = DEFAULT_LIMITS
) -> Photo:
    """The picture as upright 8-bit RGB in sRGB, with its format and notes (such as "first frame of an animation").

    Transparent parts become white. 16-bit grey is scaled to 8 bits. Pillow's mode "I" is taken as 16-bit grey, and "F"
    as grey in [0, 1]. An embedded colour profile is converted to sRGB; a broken one is ignored with a note.

    Arrays are (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA; uint8, uint16 (65535 is white) or floats in [0, 1].
    A PIL image is copied, at its current frame. Pillow has read its header already, so of the limits only
    `max_pixels` applies, and whoever opened a hostile file has met what it does: give the file or its bytes instead.

    A file object is read from its start where it can seek, else from where it stands. Links are not fetched.

    Raises `ImageError` with one sentence for everything that cannot be read or is over a limit. The sentence names a
    file without its folder.
    """
    name = _name(source)
    if isinstance(source, np.ndarray):
        check_size(source.shape[1::-1] if source.ndim in (2, 3) else (1, 1), name, limits)
        return Photo(_flatten(_image_from_array(source, name)).convert("RGB"), None, ())
    try:
        if isinstance(source, Image.Image):
            check_size(source.size, name, limits)
            return _finish(source.copy(), source.format, name, limits, [])
        return _decode(_bytes_from(source, name, limits.max_bytes), name, limits)
    except ImageError:
        raise
    # Pillow and the libraries below it document no closed set of exceptions for bad data (OSError, SyntaxError,
    # struct.error, zlib.error, KeyError, MemoryError, ...). This is where untrusted data ends: whatever they raise is a
    # property of the picture, and stays attached as the cause.
    except Exception as error:
        raise ImageError(f"{name} is damaged or incomplete and cannot be decoded; save or send it again.") from error


def _name(source: object) -> str:
    """What a sentence calls the source: a file's own name, printable and without its folder, or its kind."""
    path = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    if isinstance(path, str | os.PathLike):
        return "".join(c if c.isprintable() else "?" for c in Path(os.fsdecode(path)).name) or "The path"
    kinds = {Image.Image: "The PIL image", np.ndarray: "The array"}
    return next((name for kind, name in kinds.items() if isinstance(source, kind)), "The file")


def _bytes_from(source: str | os.PathLike | bytes | BinaryIO, name: str, max_bytes: int) -> bytes:
    """The bytes of a file, read no further than one past the limit; raises `ImageError` where there are none."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if hasattr(source, "read"):
        if hasattr(source, "seekable") and source.seekable():
            source.seek(0)  # else one that was just written, or is given twice, would seem empty
        data = bytearray()
        while len(data) <= max_bytes and (chunk := source.read(max_bytes + 1 - len(data))):
            if not isinstance(chunk, bytes):
                raise ImageError(f"{name} is a file in text mode; open it in binary mode.")
            data += chunk
        return bytes(data)
    if not isinstance(source, str | os.PathLike):
        raise ImageError(f"The picture is a {type(source).__name__}; give a path, bytes, file, PIL image or array.")
    path = Path(os.fsdecode(source))
    if link := _LINK_SCHEME.match(os.fsdecode(source)):
        raise ImageError(
            f"The picture is a link ({link[0]}:…), and links are not fetched; give a path, bytes or a file."
        )
    try:
        if path.is_dir():
            raise ImageError(f"{name} is a folder; give the pictures in it one by one.")
        if not path.is_file():  # a pipe or a device counts as none: opening one may wait for ever
            raise ImageError(f"There is no file {name}; check the path.")
        with path.open("rb") as file:
            return _bytes_from(file, name, max_bytes)
    except OSError as error:
        raise ImageError(f"{name} cannot be read ({error.strerror}); check the file and its permissions.") from error


def _image_from_array(array: np.ndarray, name: str) -> Image.Image:
    """An "L", "RGB" or "RGBA" image of an array of values; raises `ImageError` for what is none."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError(f"{name} has shape {array.shape}; give (height, width), (height, width, 3) or (…, 4).")
    if array.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(array))
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return Image.fromarray(_GREY16_TO_8[array])
    if array.dtype.kind != "f":
        raise ImageError(f"{name} holds {array.dtype} values; give uint8, uint16 or floats from 0 to 1.")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # said this way round because NaN compares false
        raise ImageError(f"{name} holds floats from {low:g} to {high:g}; they must lie between 0 and 1, without NaN.")
    return Image.fromarray(np.rint(array.astype(np.float32, copy=False) * 255).astype(np.uint8))


def _decode(data: bytes, name: str, limits: ImageLimits) -> Photo:
    """The picture in a file's bytes. May raise anything: `read_image` makes one kind of it."""
    if not data:
        raise ImageError(f"{name} is empty; give a file with a picture in it.")
    if len(data) > limits.max_bytes:
        raise ImageError(f"{name} is larger than the {limits.max_bytes / 1e6:g} MB that are read; save it smaller.")
    Image.init()  # loads Pillow's plugins once, outside the metered time
    file = MeteredBytes(disarm(data, name, limits), name)
    try:
        image = Image.open(file, formats=limits.formats)
    except Image.UnidentifiedImageError as error:
        allowed = ", ".join(limits.formats).replace("HEIF", "HEIC")
        raise ImageError(f"{name} is no intact picture of an allowed kind ({allowed}); convert it to one.") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, a few times ours
        raise ImageError(f"{name} has more than {limits.max_pixels / 1e6:g} million pixels; shrink it.") from error
    check_size(image.size, name, limits)
    notes = []
    if image.format != "MPO" and getattr(image, "is_animated", False):
        kind = "several pictures" if image.format in ("TIFF", "HEIF") else "an animation"
        notes.append(f"{name} holds {kind}; only the first is used.")
    inverted = False
    if image.format == "TIFF":
        disarm_opened_tiff(image, name, limits)
        inverted = image.mode.startswith("I;16") and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    file.end_header()
    pixels = _pixels(image)
    if inverted:  # Pillow does so itself, for 8 bits only
        pixels = Image.fromarray(65535 - np.asarray(pixels).astype(np.uint16))
    return _finish(pixels, image.format, name, limits, notes)


def _pixels(image: Image.Image) -> Image.Image:
    """The decoded image without its file, whose buffers are freed: at 50 million pixels each copy takes 200 MB."""
    pixels = image.copy()
    image.close()
    return pixels


def _finish(picture: Image.Image, format: str | None, name: str, limits: ImageLimits, notes: list[str]) -> Photo:
    """The photo of decoded pixels that are ours to change: 8 bits, without transparency, in sRGB, upright."""
    check_size(picture.size, name, limits)  # what a file's stream holds may differ from its header
    profile = picture.info.get("icc_profile")
    method = _UPRIGHT.get(_orientation(picture.info.get("exif") or b""))
    picture = _flatten(_to_8_bit(picture, name))
    if profile:
        picture = _to_srgb(picture, profile, name, notes)
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    if method is not None:
        picture = picture.transpose(method)
    picture.info = {}
    return Photo(picture, "JPEG" if format == "MPO" else format, tuple(notes))  # MPO: a JPEG with more pictures behind


def _orientation(exif: bytes) -> int:
    """The orientation tag in EXIF bytes; 1, as stored, where there is none or it cannot be read.

    Read by hand, because Pillow's reader also unpacks every other tag, and 64 kB of EXIF can claim gigabytes.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = "<" if tiff[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "L", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, start)
        for index in range(entries):
            tag, value = struct.unpack_from(order + "H6xH", tiff, start + 2 + 12 * index)
            if tag == ExifTags.Base.Orientation:
                return value
    except struct.error:  # cut short: many cameras and editors leave such EXIF behind, and the picture is whole
        return 1
    return 1


def _to_8_bit(image: Image.Image, name: str) -> Image.Image:
    """The image itself, or "L" for the grey modes of more than 8 bits, with a transparent grey value made white."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    if image.mode == "I":
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"{name} has values from {values.min()} to {values.max()}; grey goes from 0 to 65535.")
        values = values.astype(np.uint16)
    grey = np.array(_image_from_array(values, name))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _flatten(image: Image.Image) -> Image.Image:
    """The image over white as "RGB" where it has transparency; "L", "RGB" or "CMYK" in any case."""
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image  # Pillow has no way from La to RGBA
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(image, mask=image)
        return canvas
    return image if image.mode in _ICC_SPACE else image.convert("L" if image.mode == "1" else "RGB")


def _to_srgb(image: Image.Image, profile: bytes, name: str, notes: list[str]) -> Image.Image:
    """The image in sRGB; itself, with a note, where the profile is broken or for another kind of colours."""
    fault = "is for other colours"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() == _ICC_SPACE[image.mode]:
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        fault = "is damaged"
    notes.append(f"The colour profile of {name} {fault} and was ignored; colours may be slightly off.")
    return image
