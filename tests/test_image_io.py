"""What `read_image` makes of good pictures: every format, mode, orientation and kind of source, by pixel values."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from fer_hf.image_io import ImageError, read_image
from tests.hostile_pictures import png_chunk
from tests.pictures import UPRIGHT_TO_STORED, encode, encode_turned, photo_variants, to_grey16

LOSSY = 4.0  # mean absolute error, in steps of 255, that a decoder may differ by; a wrong turn costs over 40 here


@pytest.fixture
def card() -> Image.Image:
    """48×32 RGB, smooth and different at each corner, so that any turn or mirroring shows."""
    y, x = np.mgrid[0:32, 0:48]
    return Image.fromarray(np.stack([x * 5, y * 7, 200 - x * 2 - y * 3], axis=-1).astype(np.uint8))


def error(photo, picture: Image.Image) -> float:
    """The mean absolute difference of an RGB photo from the picture it should be."""
    assert photo.image.mode == "RGB"
    assert photo.image.size == picture.size
    return float(np.abs(np.asarray(photo.image, dtype=float) - np.asarray(picture.convert("RGB"))).mean())


@pytest.mark.parametrize(
    ("format", "options", "found", "bound"),
    [
        ("JPEG", {"quality": 92}, "JPEG", LOSSY),
        ("JPEG", {"quality": 92, "progressive": True}, "JPEG", LOSSY),
        ("PNG", {}, "PNG", 0),
        ("WEBP", {"quality": 92}, "WEBP", LOSSY),
        ("WEBP", {"lossless": True}, "WEBP", 0),
        ("TIFF", {}, "TIFF", 0),
        ("TIFF", {"compression": "tiff_lzw"}, "TIFF", 0),
        ("TIFF", {"compression": "tiff_adobe_deflate"}, "TIFF", 0),
        ("TIFF", {"compression": "jpeg", "quality": 92}, "TIFF", LOSSY),
        ("BMP", {}, "BMP", 0),
        ("AVIF", {"quality": 90}, "AVIF", LOSSY),
        ("HEIC", {"quality": 90}, "HEIF", LOSSY),
    ],
)
def test_every_format_is_read(card, format, options, found, bound):
    photo = read_image(encode(card, format, **options))
    assert photo.format == found
    assert photo.notes == ()
    assert error(photo, card) <= bound


def test_gif_keeps_the_colours_of_its_palette(card):
    palette = card.quantize(64)
    assert error(read_image(encode(palette, "GIF")), palette) == 0


def test_photo_variants_are_the_same_photo(hopper):
    small = hopper.resize((160, 190))
    variants = photo_variants(small)
    assert len(variants) == 20
    for name, data in variants.items():
        expected = small.convert("L") if name == "grey16.png" else small
        assert error(read_image(data), expected) < LOSSY, name


@pytest.mark.parametrize("orientation", UPRIGHT_TO_STORED)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "HEIC", "AVIF"])
def test_every_orientation_comes_out_upright_once(card, format, orientation):
    photo = read_image(encode_turned(card, orientation, format))
    assert error(photo, card) < (0.01 if format in ("PNG", "TIFF") else 8)
    assert not photo.image.getexif()  # or the next reader would turn it again


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\0\0\0", b"II*\0\x08\0\0\0\xff\xff" + b"\1" * 30, b"x"]
)
def test_broken_exif_leaves_the_picture_as_stored(card, exif):
    image = card.copy()
    image.info["exif"] = exif
    assert error(read_image(image), card) == 0


def test_big_endian_exif_is_read(card):
    exif = b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHLHH", 274, 3, 1, 3, 0)
    assert error(read_image(encode(card.rotate(180), "PNG", exif=b"Exif\0\0" + exif)), card) == 0


@pytest.mark.parametrize(("brand", "format"), [("HEIC", "HEIF"), ("AVIF", "AVIF")])
def test_the_brand_that_heic_and_avif_share_is_told_by_content(card, brand, format):
    data = encode(card, brand)
    shared = data[:8] + b"mif1" + data[12:16] + data[16:].replace(b"mif1", data[8:12], 1)
    photo = read_image(shared)
    assert photo.format == format
    assert error(photo, card) < 8


def test_format_comes_from_the_content_and_not_from_the_name(card, tmp_path):
    path = tmp_path / "from-a-phone.jpg"
    path.write_bytes(encode(card, "HEIC"))
    assert read_image(path).format == "HEIF"


@pytest.mark.parametrize("format", ["HEIC", "AVIF"])
def test_exif_does_not_turn_what_has_its_own_boxes_for_that(card, format):
    """A phone writes both a rotation box and EXIF; only the box counts, and EXIF alone turns nothing (MIAF)."""
    exif = b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHLHH", 274, 3, 1, 1, 0) + bytes(4)
    title = b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHLHH", 275, 3, 1, 6, 0) + bytes(4)  # Pillow leaves this tag alone
    data = encode(card, format, quality=90, exif=exif if format == "HEIC" else title)
    turned = data.replace(exif, exif[:18] + b"\6" + exif[19:]).replace(title, title[:10] + b"\x12" + title[11:])
    assert turned != data
    assert error(read_image(turned), card) < LOSSY


# ---- 16 bits

GREY16 = [0, 128, 129, 257, 32_896, 65_406, 65_407, 65_535]
GREY8 = [0, 0, 1, 1, 128, 254, 255, 255]  # value / 257, to the nearest


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(format):
    image = Image.fromarray(np.array([GREY16], dtype=np.uint16))
    photo = read_image(encode(image, format))
    assert np.asarray(photo.image)[0].tolist() == [[value] * 3 for value in GREY8]


def test_16_bit_tiff_whose_white_is_zero_is_turned_round():
    image = Image.fromarray(65535 - np.array([GREY16], dtype=np.uint16))
    photo = read_image(encode(image, "TIFF", tiffinfo={262: 0}))
    assert np.asarray(photo.image)[0, :, 0].tolist() == GREY8


def test_big_endian_and_32_bit_modes_of_16_bit_grey_are_read_alike():
    big = Image.frombytes("I;16B", (8, 1), np.array(GREY16, dtype=">u2").tobytes())
    wide = Image.fromarray(np.array([GREY16], dtype=np.int32))
    assert (big.mode, wide.mode) == ("I;16B", "I")
    for image in (big, wide):
        assert np.asarray(read_image(image).image)[0, :, 0].tolist() == GREY8


@pytest.mark.parametrize(("mode", "value"), [("I", 65_536), ("I", -1), ("F", 1.5), ("F", float("nan"))])
def test_values_outside_the_range_of_a_mode_are_refused(mode, value):
    with pytest.raises(ImageError, match=r"from -?[0-9.nan]+ to"):
        read_image(Image.new(mode, (3, 2), value))


def test_16_bit_colour_keeps_its_high_byte():
    pixel = zlib.compress(b"\0" + struct.pack(">HHH", 0x4000, 0x8000, 0xC000))
    head = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", pixel) + png_chunk(b"IEND", b"")
    assert read_image(data).image.getpixel((0, 0)) == (0x40, 0x80, 0xC0)


# ---- Modes and transparency


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("1", 255, (255, 255, 255)),
        ("1", 0, (0, 0, 0)),
        ("L", 77, (77, 77, 77)),
        ("F", 0.2, (51, 51, 51)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBX", (1, 2, 3, 0), (1, 2, 3)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("YCbCr", (76, 85, 255), (254, 0, 0)),
        ("HSV", (85, 255, 255), (0, 255, 0)),
        ("LAB", (255, 128, 128), (255, 255, 255)),
        ("LA", (0, 255), (0, 0, 0)),
        ("LA", (0, 51), (204, 204, 204)),
        ("La", (0, 51), (204, 204, 204)),
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("RGBA", (255, 0, 0, 51), (255, 204, 204)),
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBa", (51, 0, 0, 51), (255, 204, 204)),
    ],
)
def test_every_mode_becomes_rgb_over_white(mode, value, expected):
    photo = read_image(Image.new(mode, (3, 2), value))
    assert photo.image.size == (3, 2)
    np.testing.assert_allclose(photo.image.getpixel((2, 1)), expected, atol=1)


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_colour_is_laid_over_white(format):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    photo = read_image(encode(image, format, transparency=0))
    assert [photo.image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 100, 50)]


def test_a_palette_with_alpha_is_laid_over_white():
    image = Image.new("PA", (1, 1), (0, 51))
    image.putpalette([255, 0, 0])
    assert read_image(image).image.getpixel((0, 0)) == (255, 204, 204)


@pytest.mark.parametrize(("mode", "key"), [("RGB", (9, 8, 7)), ("L", 9), ("I;16", 5000)])
def test_a_colour_marked_as_transparent_becomes_white(mode, key):
    image = Image.new(mode, (2, 1), key)
    image.putpixel((1, 0), 0 if mode != "RGB" else (0, 0, 0))
    photo = read_image(encode(image, "PNG", transparency=key))
    assert [photo.image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]


@pytest.mark.parametrize("format", ["WEBP", "TIFF", "HEIC", "AVIF"])
def test_alpha_of_other_formats_is_laid_over_white(format):
    photo = read_image(encode(Image.new("RGBA", (32, 32), (255, 0, 0, 51)), format))
    np.testing.assert_allclose(photo.image.getpixel((16, 16)), (255, 204, 204), atol=3)


def test_cmyk_jpeg_has_its_colours_the_right_way_round(card):
    assert error(read_image(encode(card.convert("CMYK"), "JPEG", quality=95)), card) < LOSSY


# ---- Animations and several pictures


@pytest.mark.parametrize(
    ("format", "what"),
    [("GIF", "animation"), ("WEBP", "animation"), ("PNG", "animation"), ("AVIF", "animation"), ("TIFF", "pictures")],
)
def test_the_first_frame_is_taken_and_said_so(card, format, what):
    frames = [card, Image.new("RGB", card.size, "black")]
    photo = read_image(encode(frames[0], format, save_all=True, append_images=frames[1:]))
    assert error(photo, card) < 10
    (note,) = photo.notes
    assert what in note
    assert "only the first is used" in note


def test_the_further_pictures_of_a_phones_jpeg_are_not_remarked_on(card):
    data = encode(card, "MPO", save_all=True, append_images=[card.rotate(180)])
    photo = read_image(data)
    assert (photo.format, photo.notes) == ("JPEG", ())
    assert error(photo, card) < LOSSY


# ---- Colour profiles


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """sRGB with the red and green primaries exchanged: what such a file calls red is green."""
    return srgb_profile().replace(b"rXYZ", b"tmp!").replace(b"gXYZ", b"rXYZ").replace(b"tmp!", b"gXYZ")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "HEIC", "AVIF"])
def test_a_colour_profile_is_converted_to_srgb(format):
    data = encode(Image.new("RGB", (32, 32), (250, 5, 5)), format, icc_profile=swapped_profile())
    photo = read_image(data)
    assert photo.notes == ()
    assert "icc_profile" not in photo.image.info
    np.testing.assert_allclose(photo.image.getpixel((16, 16)), (5, 250, 5), atol=6)


def test_an_srgb_profile_changes_nothing(card):
    assert error(read_image(encode(card, "PNG", icc_profile=srgb_profile())), card) < 0.5


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK", "P"])
def test_a_broken_profile_is_a_note_and_no_error(mode):
    image = Image.new("RGB", (4, 4), "white").convert(mode)
    photo = read_image(encode(image, "TIFF", icc_profile=b"no profile at all"))
    assert photo.image.getpixel((1, 1)) == (255, 255, 255)
    assert len(photo.notes) == 1
    assert "colour profile" in photo.notes[0]


def test_a_profile_for_other_colours_is_a_note_and_no_error(card):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    photo = read_image(encode(card, "PNG", icc_profile=lab))
    assert error(photo, card) == 0
    assert "colour profile" in photo.notes[0]


# ---- Sources


def test_all_kinds_of_sources_give_the_same_photo(card, tmp_path):
    data = encode(card, "PNG")
    path = tmp_path / "card.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        sources = [str(path), path, data, bytearray(data), memoryview(data), io.BytesIO(data), file, card]
        photos = [read_image(source) for source in sources]
    assert all(error(photo, card) == 0 for photo in photos)
    assert [photo.format for photo in photos] == ["PNG"] * 7 + [None]


def test_a_file_is_read_from_its_start_wherever_it_stands(card, tmp_path):
    written = io.BytesIO()
    card.save(written, "PNG")
    assert error(read_image(written), card) == 0
    (tmp_path / "card.png").write_bytes(written.getvalue())
    with (tmp_path / "card.png").open("rb") as file:
        assert [error(read_image(file), card) for _ in range(2)] == [0, 0]


def test_a_stream_that_cannot_seek_is_read_from_where_it_stands(card):
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation("seek")

    class Bare:
        def __init__(self, data: bytes):
            self.read = io.BytesIO(data).read

    for kind in (Stream, Bare):
        assert error(read_image(kind(encode(card, "PNG"))), card) == 0


def test_a_pil_image_is_copied_turned_and_keeps_its_format(card):
    given = Image.open(io.BytesIO(encode_turned(card, 6, "PNG")))
    photo = read_image(given)
    assert photo.format == "PNG"
    assert error(photo, card) == 0
    assert given.size == (32, 48)
    assert given.getexif()[274] == 6
    plain = read_image(card)
    plain.image.putpixel((0, 0), (255, 255, 255))
    assert card.getpixel((0, 0)) != (255, 255, 255)


def test_the_photo_carries_no_metadata(card):
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "somebody")
    exif = Image.Exif()
    exif[0x010F] = "camera"
    assert read_image(encode(card, "PNG", pnginfo=text, exif=exif)).image.info == {}


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 3), (2, 3, 4)])
@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("uint8", 51, 255), ("uint16", 13_107, 65_535), (">u2", 13_107, 65_535)]
    + [(kind, 0.2, 1.0) for kind in ("float16", "float32", "float64")],
)
def test_arrays_of_every_shape_and_type(shape, dtype, low, high):
    array = np.full(shape, high, dtype=dtype)
    array[0, 0, ...] = low
    if shape[-1] == 4:
        array[..., 3] = high
    photo = read_image(array)
    assert photo.format is None
    assert photo.image.size == (3, 2)
    assert photo.image.getpixel((0, 0)) == (51, 51, 51)
    assert photo.image.getpixel((2, 1)) == (255, 255, 255)


def test_alpha_of_an_array_is_laid_over_white_and_strides_do_not_matter():
    array = np.zeros((4, 6, 4), dtype=np.uint8)
    array[..., 0] = 255
    array[..., 3] = 51
    assert read_image(array[::2, ::-1]).image.getpixel((0, 0)) == (255, 204, 204)


def test_16_bit_grey_arrays_and_files_agree(card):
    grey = to_grey16(card)
    from_array = read_image(np.asarray(grey)).image
    assert error(read_image(encode(grey, "PNG")), from_array) == 0
