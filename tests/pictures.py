"""Pictures as bytes in every format that `fer_hf.image_io` reads, made when asked for, so no binary file is kept.

HEIC is encoded through pillow_heif itself, not through Pillow: that leaves Pillow's list of openers alone, and a
reader that forgot to register HEIC fails its test.
"""

import io

import numpy as np
import pillow_heif
from PIL import ExifTags, Image

# EXIF orientation (tag 0x0112) -> what turns an upright picture into the pixels stored under that orientation
UPRIGHT_TO_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encode(image: Image.Image, format: str, **options) -> bytes:
    """The picture as bytes of one format: a name that Pillow knows, or "HEIC"; `options` go to the encoder."""
    buffer = io.BytesIO()
    if format == "HEIC":
        pillow_heif.from_pillow(image).save(buffer, **options)
    else:
        image.save(buffer, format, **options)
    return buffer.getvalue()


def encode_turned(image: Image.Image, orientation: int, format: str = "JPEG", **options) -> bytes:
    """The picture as a camera held in that EXIF orientation (1 to 8) stores it: turned pixels and the tag."""
    method = UPRIGHT_TO_STORED[orientation]
    stored = image if method is None else image.transpose(method)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encode(stored, format, exif=exif.tobytes(), **options)


def to_grey16(image: Image.Image) -> Image.Image:
    """The picture in mode "I;16", with values that differ from 257 times the 8-bit grey by less than one grey step."""
    grey = np.asarray(image.convert("RGB"), dtype=np.float64) @ (0.299, 0.587, 0.114)
    return Image.fromarray(np.round(grey * 257).astype(np.uint16))


def photo_variants(image: Image.Image) -> dict[str, bytes]:
    """One photo in every format, mode and orientation that people have: file name -> the file's bytes.

    `image` is RGB and upright. All are near the original in colour, except "grey16.png", which has none, and "gif.gif",
    which has 256 colours. "heic-named.jpg" is what a phone's share menu makes: HEIC content under a JPEG name.
    """
    image = image.convert("RGB")
    image.info.clear()  # an embedded profile or an old EXIF tag would travel into some formats and not into others
    heic = encode(image, "HEIC", quality=90)
    return {
        "jpeg.jpg": encode(image, "JPEG", quality=92),
        "png.png": encode(image, "PNG"),
        "webp.webp": encode(image, "WEBP", quality=92),
        "tiff.tif": encode(image, "TIFF", compression="tiff_lzw"),
        "grey16.png": encode(to_grey16(image), "PNG"),
        "cmyk.jpg": encode(image.convert("CMYK"), "JPEG", quality=92),
        "rgba.png": encode(image.convert("RGBA"), "PNG"),
        **{f"orientation-{tag}.jpg": encode_turned(image, tag, quality=92) for tag in UPRIGHT_TO_STORED},
        "heic.heic": heic,
        "heic-named.jpg": heic,
        "gif.gif": encode(image.quantize(256), "GIF"),
        "bmp.bmp": encode(image, "BMP"),
        "avif.avif": encode(image, "AVIF", quality=85),
    }
