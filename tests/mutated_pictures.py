"""Pictures that are damaged by chance, and a child process that reads them, or the hostile ones, under a watch.

`python -m tests.mutated_pictures mutated 50 0` reads 50 mutations of each format made from seed 0, and
`python -m tests.mutated_pictures hostile` those that are built to do harm; both print one JSON object of
`{name: record}`. It is a child because a decoder in C may take the whole process with it, and because peak memory
belongs to a process.
"""

import json
import random
import re
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image, ImageCms, PngImagePlugin

from tests.pictures import encode, encode_turned, to_grey16

MUTATED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "HEIC", "AVIF", "BMP")


def seeds() -> dict[str, list[bytes]]:
    """For each format the intact files that mutations start from: plain, with metadata, in rarer modes."""
    image = Image.effect_mandelbrot((96, 64), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    frames = {"save_all": True, "append_images": [image.rotate(120), image.rotate(240)]}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile[:24] + bytes(12) + profile[36:]  # without the date of its making, or each run has other files
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a remark " * 60)
    text.add_text("Comment", "a remark " * 30, zip=True)
    options = {"JPEG": {}, "WEBP": {}, "TIFF": {"compression": "tiff_lzw"}, "HEIC": {}, "AVIF": {"speed": 10}}
    made = {name: [encode(image, name, **kw), encode_turned(image, 6, name, **kw)] for name, kw in options.items()}
    made["PNG"] = [encode(image, "PNG", pnginfo=text, icc_profile=profile), encode(to_grey16(image), "PNG")]
    made["GIF"] = [encode(image.quantize(64), "GIF", comment=b"a remark " * 30)]
    made["BMP"] = [encode(image, "BMP"), encode(image.quantize(16), "BMP")]
    made["JPEG"] += [
        encode(image, "JPEG", progressive=True, icc_profile=profile),
        encode(image.convert("CMYK"), "JPEG"),
    ]
    made["WEBP"] += [encode(image.convert("RGBA"), "WEBP", lossless=True), encode(image, "WEBP", **frames)]
    made["GIF"] += [encode(image.quantize(64), "GIF", **frames)]
    made["PNG"] += [encode(image, "PNG", **frames), encode(image.quantize(16), "PNG", pnginfo=text)]
    made["TIFF"] += [encode(image, "TIFF"), encode(image, "TIFF", compression="jpeg", **frames)]
    made["TIFF"] += [encode(to_grey16(image), "TIFF", compression="tiff_adobe_deflate")]
    made["AVIF"] += [encode(image.convert("RGBA"), "AVIF", speed=10), encode(image, "AVIF", speed=10, **frames)]
    made["HEIC"] += [encode(image.convert("RGBA"), "HEIC", icc_profile=profile)]
    return made


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A damaged copy: a few changes, each of a kind and at a place that differ from copy to copy."""
    changed = bytearray(data)
    late = rng.random() < 0.4  # in most formats the pixels come late, and damage there often still decodes
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        low = len(changed) // 2 if late else 0
        high = len(changed) if late or rng.random() < 0.5 else min(len(changed), 400)
        at = rng.randrange(low, high)
        kind = rng.choice(("bit", "bit", "byte", "number", "cut", "insert", "delete", "repeat"))
        if kind == "bit":
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            changed[at] = rng.randrange(256)
        elif kind == "number":  # what sizes, counts and offsets are made of
            number = rng.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF))
            changed[at : at + 4] = number.to_bytes(4, rng.choice(("big", "little")))
        elif kind == "cut" and rng.random() < 0.3:
            del changed[at:]
        elif kind == "insert":
            changed[at:at] = rng.randbytes(rng.randrange(1, 16))
        elif kind == "delete":
            del changed[at : at + rng.randrange(1, 16)]
        elif kind == "repeat":
            changed[at:at] = changed[at : at + rng.randrange(1, 256)]
        if not changed:
            return b""
    return bytes(changed)


def mend_png(data: bytes) -> bytes:
    """The PNG with right checksums, so that damage gets past them to what reads the chunks."""
    mended, at = bytearray(data), 8
    while at + 12 <= len(mended):
        (length,) = struct.unpack_from(">I", mended, at)
        end = at + 8 + length
        if end + 4 > len(mended):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(mended[at + 4 : end]))
        at = end + 4
    return bytes(mended)


def mutated(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` mutations of each format, as ("JPEG-0", bytes) and so on; the same for the same seed."""
    for format, files in seeds().items():
        rng = random.Random(f"{format}-{seed}")
        for index in range(count):
            data = mutate(files[index % len(files)], rng)
            yield f"{format}-{index}", mend_png(data) if format == "PNG" and rng.random() < 0.8 else data


def peak_mb() -> float:
    """The most memory that this process had resident at once; not `ru_maxrss`, which keeps a parent's across exec."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def watch(pictures: Iterator[tuple[str, bytes]]) -> dict[str, dict]:
    """What reading each picture did: its outcome, processor seconds, and the process's peak memory so far."""
    from fer_hf.image_io import ImageError, read_image

    warnings.simplefilter("ignore")  # Pillow warns about odd EXIF; thousands of lines would bury a real message
    records = {}
    for name, data in pictures:
        before = time.process_time()
        try:
            photo = read_image(data)
            outcome = "decoded" if photo.image.mode == "RGB" else f"decoded to {photo.image.mode}"
        except ImageError as error:
            outcome = "refused" if str(error).endswith(".") else f"no sentence: {error}"
        seconds = time.process_time() - before
        records[name] = {"outcome": outcome, "seconds": seconds, "peak_mb": peak_mb()}
    return records


def read_in_child(*arguments: str) -> dict[str, dict]:
    """The records of a child process; a child that died or hangs raises."""
    command = [sys.executable, "-m", "tests.mutated_pictures", *arguments]
    root = Path(__file__).parent.parent
    child = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=1800, check=False)
    if child.returncode != 0:
        raise AssertionError(f"The child died with code {child.returncode}:\n{child.stderr[-2000:]}")
    return json.loads(child.stdout.splitlines()[-1])


if __name__ == "__main__":
    from tests.hostile_pictures import hostile

    sources: dict[str, Callable] = {"mutated": lambda count, seed: mutated(int(count), int(seed)), "hostile": hostile}
    print(json.dumps(watch(sources[sys.argv[1]](*sys.argv[2:]))))
