"""What `read_image` refuses, that it refuses early, and that each refusal is one helpful sentence."""

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from fer_hf.image_io import FORMATS, ImageError, ImageLimits, read_image
from tests.pictures import encode

ENCODED = {"HEIF": "HEIC"}  # Pillow's name -> what `encode` calls it


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """A 96×64 picture in every format."""
    image = Image.effect_mandelbrot((96, 64), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    return {format: encode(image, ENCODED.get(format, format)) for format in FORMATS}


@pytest.fixture
def loaded(monkeypatch) -> list[str]:
    """The classes of Pillow whose `load`, which decodes pixels, has been called; they work as before."""
    calls = []

    def record(cls: type) -> None:
        load = cls.load

        def recorded(self):
            calls.append(cls.__name__)
            return load(self)

        monkeypatch.setattr(cls, "load", recorded)

    def own_loads(cls: type) -> set[type]:
        below = set().union(*(own_loads(child) for child in cls.__subclasses__()))
        return below | ({cls} if "load" in vars(cls) else set())

    for cls in own_loads(ImageFile.ImageFile):
        record(cls)
    return calls


def refusal(source, **limits) -> str:
    """The sentence with which a source is refused, checked to be one."""
    with pytest.raises(ImageError) as caught:
        read_image(source, limits=ImageLimits(**limits))
    sentence = str(caught.value)
    assert re.fullmatch(r"[^\n]{15,220}\.", sentence)
    return sentence


# ---- Limits


@pytest.mark.parametrize("format", FORMATS)
def test_too_many_pixels_are_refused_before_any_is_decoded(files, loaded, format):
    assert "96 × 64 pixels; at most 0.006 million" in refusal(files[format], max_pixels=6_000)
    assert loaded == []
    assert read_image(files[format], limits=ImageLimits(max_pixels=96 * 64)).image.size == (96, 64)
    assert loaded != []  # or the recording would prove nothing


@pytest.mark.parametrize("source", [Image.new("L", (100, 61)), np.zeros((61, 100, 3), dtype=np.uint8)])
def test_the_limit_of_pixels_holds_for_images_and_arrays_too(source):
    assert "100 × 61 pixels" in refusal(source, max_pixels=6_000)


def test_defaults_are_50_million_pixels_and_20_million_bytes():
    assert "7072 × 7072 pixels; at most 50 million" in refusal(encode(Image.new("1", (7072, 7072)), "PNG"))
    assert read_image(Image.new("1", (7071, 1))).image.size == (7071, 1)
    assert "20 MB" in refusal(bytes(20_000_001))


def test_what_pillow_itself_calls_a_bomb_is_refused_with_our_sentence():
    size_at = 6
    gif = bytearray(encode(Image.new("P", (8, 8)), "GIF"))
    gif[size_at : size_at + 4] = struct.pack("<HH", 65_535, 65_535)
    assert "more than 50 million pixels" in refusal(bytes(gif))


class Endless(io.RawIOBase):
    """A binary file without end that counts what is read of it."""

    def __init__(self):
        self.given = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        assert size > 0, "asked for everything"
        self.given += min(size, 4096)
        return bytes(min(size, 4096))


def test_a_file_is_read_to_one_byte_past_the_limit_and_no_further():
    file = Endless()
    assert "larger than the 0.1 MB" in refusal(file, max_bytes=100_000)
    assert file.given == 100_001


def test_the_limit_of_bytes_includes_the_limit(files, tmp_path):
    data = files["PNG"]
    path = tmp_path / "card.png"
    path.write_bytes(data)
    for given in (lambda: data, lambda: path, lambda: io.BytesIO(data)):
        assert read_image(given(), limits=ImageLimits(max_bytes=len(data))).format == "PNG"
        assert "larger than" in refusal(given(), max_bytes=len(data) - 1)


@pytest.mark.parametrize("format", FORMATS)
def test_formats_can_be_narrowed(files, format):
    others = tuple(name for name in FORMATS if name != format)
    assert "is no intact picture of an allowed kind" in refusal(files[format], formats=others)
    assert read_image(files[format], limits=ImageLimits(formats=(format,))).format == format


@pytest.mark.parametrize("format", ["PPM", "ICO", "TGA", "JPEG2000", "PDF", "EPS", "PCX"])
def test_other_formats_of_pillow_are_refused(format):
    data = encode(Image.new("RGB", (16, 16)), format)
    assert "(JPEG, PNG, WEBP, GIF, TIFF, BMP, AVIF, HEIC)" in refusal(data)


@pytest.mark.parametrize("formats", [("JPG",), (), ("JPEG", "PPM")])
def test_unknown_names_of_formats_are_an_error_of_the_caller(formats):
    with pytest.raises(ValueError, match="name one or more of"):
        ImageLimits(formats=formats)


# ---- Damage


@pytest.mark.filterwarnings("ignore:.*(EXIF|Truncated)")  # Pillow's remark on a TIFF whose directory is cut
@pytest.mark.parametrize(
    ("format", "options"),
    [*((format, {}) for format in FORMATS), ("JPEG", {"progressive": True}), ("WEBP", {"lossless": True})]
    + [("TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")],
)
def test_truncated_files_are_refused(format, options):
    image = Image.effect_mandelbrot((96, 64), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    data = encode(image, ENCODED.get(format, format), **options)
    for part in (0.02, 0.3, 0.6, 0.9, 0.97, 0.99):
        sentence = refusal(data[: int(len(data) * part)])
        assert "cannot be decoded" in sentence or "no intact picture" in sentence


@pytest.mark.parametrize(
    "exception",
    [OSError, SyntaxError, struct.error, zlib.error, ValueError, MemoryError, OverflowError, EOFError, RuntimeError],
)
def test_whatever_a_decoder_raises_becomes_an_image_error_with_its_cause(files, monkeypatch, exception):
    def fail(*_, **__):
        raise exception("deep inside")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(ImageError, match=r"damaged or incomplete and cannot be decoded; save") as caught:
        read_image(files["JPEG"])
    assert type(caught.value.__cause__) is exception


def test_an_interruption_is_not_taken_for_a_damaged_picture(files, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageFile.ImageFile, "load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_image(files["JPEG"])


def test_a_pil_image_whose_file_is_cut_short_is_refused(files):
    image = Image.open(io.BytesIO(files["PNG"][:-200]))
    assert "The PIL image is damaged" in refusal(image)


# ---- Sources that are none


def test_missing_files_and_folders_are_named_without_their_path(tmp_path):
    assert refusal(tmp_path / "nobody.jpg") == "There is no file nobody.jpg; check the path."
    (tmp_path / "holiday").mkdir()
    assert refusal(tmp_path / "holiday").startswith("holiday is a folder;")
    (tmp_path / "notes.txt").write_text("no picture, some words")
    assert refusal(str(tmp_path / "notes.txt")).startswith("notes.txt is no intact picture")


def test_a_file_without_permission_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "secret.jpg"
    path.write_bytes(b"x")

    def deny(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", deny)
    assert refusal(path) == "secret.jpg cannot be read (Permission denied); check the file and its permissions."


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "no file pipe.jpg" in refusal(tmp_path / "pipe.jpg")


def test_odd_names_are_made_printable():
    assert refusal("/tmp/a\nb\udcff\x1b[31m.jpg") == "There is no file a?b??[31m.jpg; check the path."
    assert "no file ?.jpg" in refusal("/tmp/\0.jpg")


@pytest.mark.parametrize(
    ("source", "scheme"),
    [
        ("https://example.com/a/astronaut.jpg?token=secret", "https"),
        (Path("HTTP://example.com/astronaut.jpg"), "HTTP"),
        ("s3://bucket/astronaut.jpg", "s3"),
        ("data:image/png;base64," + "A" * 10_000, "data"),
    ],
)
def test_links_are_not_fetched_and_named_as_such(source, scheme):
    assert refusal(source) == (
        f"The picture is a link ({scheme}:…), and links are not fetched; give a path, bytes or a file."
    )


@pytest.mark.parametrize("name", ["c:/photo.jpg", "data:1.jpg", "10:30, at home.jpg", "./https:/photo.jpg"])
def test_names_with_colons_are_paths(name, tmp_path, monkeypatch, files):
    monkeypatch.chdir(tmp_path)
    assert "There is no file" in refusal(name)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(files["PNG"])
    assert read_image(name).format == "PNG"


@pytest.mark.parametrize("source", [b"", bytearray(), io.BytesIO()])
def test_nothing_is_refused(source):
    assert "is empty" in refusal(source)


def test_files_that_give_no_bytes_are_refused(files):
    assert "text mode" in refusal(io.StringIO("some words"))
    closed = io.BytesIO(files["PNG"])
    closed.close()
    assert "cannot be decoded" in refusal(closed)


@pytest.mark.parametrize("source", [None, 7, [1, 2], {"bytes": b"x"}])
def test_other_kinds_of_sources_are_refused(source):
    assert "give a path, bytes, file, PIL image or array" in refusal(source)


# ---- Arrays


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 5), (2, 3, 1), (2, 3, 2), (3, 20, 20), (1, 4, 4, 3)])
def test_arrays_of_other_shapes_are_refused(shape):
    assert "has shape" in refusal(np.ones(shape, dtype=np.uint8))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0, 3)])
def test_arrays_without_pixels_are_refused(shape):
    assert "at least one pixel" in refusal(np.ones(shape, dtype=np.uint8))
    assert "at least one pixel" in refusal(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("dtype", ["bool", "int8", "int32", "int64", "uint32", "complex64", "object", "U1"])
def test_arrays_of_other_types_are_refused(dtype):
    assert "give uint8, uint16 or floats from 0 to 1" in refusal(np.zeros((2, 2), dtype=dtype))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1.01, -0.01, 255.0])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_outside_0_to_1_are_refused(value, dtype):
    array = np.full((2, 2, 3), 0.5, dtype=dtype)
    array[1, 1, 1] = value
    assert "between 0 and 1" in refusal(array)
