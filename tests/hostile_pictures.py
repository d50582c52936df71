"""Files of a few bytes to a few megabytes that are built to make a decoder use gigabytes or minutes.

Opened by Pillow 12.3 as they are, most of them do. The others are refused by the libraries, which is pinned here too.
"""

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from tests.pictures import encode

MB = 1_000_000


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, before: bytes = b"", pixel_bytes: int = 0) -> bytes:
    """An RGB PNG that claims a size, with chunks before its pixels, and as many zero bytes of pixels as wanted."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(pixel_bytes)))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + png_chunk(b"IEND", b"")


def tiff(tags: list[tuple[int, int, int, int | bytes]], width: int = 64, height: int = 64, data: bytes = b"") -> bytes:
    """A little-endian grey TIFF with further tags (number, type, count, value or the bytes it points at) and data."""
    head = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    given = {tag[0] for tag in tags}
    tags = sorted([tag for tag in head if tag[0] not in given] + tags, key=lambda tag: tag[0])
    place = 8 + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for tag, kind, count, value in tags:
        number = place + len(values) if isinstance(value, bytes) else value
        values += value if isinstance(value, bytes) else b""
        entries += struct.pack("<HHLL", tag, kind, count, number)
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4) + values + data


ONE_STRIP = [(259, 3, 1, 1), (273, 4, 1, 8), (278, 4, 1, 64), (279, 4, 1, 4096)]


def exif_claiming(total: int, tags: int) -> bytes:
    """EXIF of `total` bytes in which each tag says that its value is all that follows, and the picture lies turned."""
    rest = total - (8 + 2 + 12 * tags + 4)
    entries = b"".join(
        struct.pack("<HHLHH", tag, 3, 1, 6, 0) if tag == 274 else struct.pack("<HHLL", tag, 3, rest // 2, total - rest)
        for tag in range(tags)
    )
    return b"II*\0" + struct.pack("<LH", 8, tags) + entries + bytes(4) + b"\1" * rest


def jpeg_segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpegs(small: Image.Image) -> Iterator[tuple[str, bytes]]:
    rest = encode(small, "JPEG")[20:]  # without the JFIF header, so that Pillow looks for the resolution in the EXIF
    exif = exif_claiming(9 * MB, 65_535)
    joined = b"".join(jpeg_segment(0xE1, b"Exif\0\0" + exif[at : at + 65_000]) for at in range(0, len(exif), 65_000))
    yield "jpeg exif in many segments", b"\xff\xd8" + joined + rest
    yield "jpeg exif of 64 kB", b"\xff\xd8" + jpeg_segment(0xE1, b"Exif\0\0" + exif_claiming(65_500, 2_700)) + rest
    yield "jpeg million segments", b"\xff\xd8" + jpeg_segment(0xFE, b"") * (4 * MB) + rest
    frame = jpeg_segment(0xC0, b"\x08\0\x40\0\x40\3" + bytes(65_520))
    yield "jpeg huge frame headers", b"\xff\xd8" + frame * 300 + rest


def pngs() -> Iterator[tuple[str, bytes]]:
    yield "png bomb", png(13_300, 13_300, pixel_bytes=MB)
    frame = struct.pack(">IIIIIHHBB", 0, 60_000, 60_000, 0, 0, 1, 1, 1, 0)  # to be cleared before the next frame
    animated = png_chunk(b"acTL", struct.pack(">II", 2, 0)) + png_chunk(b"fcTL", frame)
    yield "png animated canvas", png(60_000, 60_000, before=animated)
    second = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    yield "png second header", png(64, 64, before=second + animated)
    texts = b"".join(png_chunk(b"zTXt", b"%d\0\0" % i + zlib.compress(bytes(2**20))) for i in range(100))
    yield "png texts that unpack", png(64, 64, before=texts, pixel_bytes=64 * 193)
    yield "png text of 15 MB", png(64, 64, before=png_chunk(b"tEXt", b"k\0" + bytes(15 * MB)), pixel_bytes=64 * 193)
    profile = png_chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(50 * MB)))
    yield "png profile that unpacks", png(64, 64, before=profile, pixel_bytes=64 * 193)
    yield "png million chunks", png(64, 64, before=png_chunk(b"abCd", b"") * (3 * MB // 2), pixel_bytes=64 * 193)


def tiffs() -> Iterator[tuple[str, bytes]]:
    value = b"\1" * (5 * MB)
    overlapping = [(40_000, 7, len(value), value)] + [(tag, 7, len(value), 500) for tag in range(41_000, 42_000)]
    yield "tiff tags that share a value", tiff(ONE_STRIP + overlapping)
    yield "tiff million strips", tiff([(259, 3, 1, 1), (273, 4, 2 * MB, bytes(8 * MB)), (278, 4, 1, 1)])
    directory = struct.pack("<H", 60_000)
    directory += b"".join(struct.pack("<HHLL", tag, 3, 2 * MB, 1000) for tag in range(60_000))
    where = 8 + 2 + 12 * 10 + 4 + len(value)
    yield "tiff exif that shares a value", tiff([*ONE_STRIP, (34_665, 4, 1, where)], data=value + directory)
    side = 40_000
    zeros = zlib.compressobj(1)
    packed = b"".join(zeros.compress(bytes(MB)) for _ in range(200)) + zeros.flush()
    tiles = [(259, 3, 1, 8), (322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, packed), (325, 4, 1, len(packed))]
    yield "tiff tile larger than the picture", tiff(tiles)


def gifs(small: Image.Image) -> Iterator[tuple[str, bytes]]:
    gif = encode(small.quantize(64), "GIF")
    image_at = gif.index(b",", 13 + 3 * 64)
    comment = b"!\xfe" + (b"\xff" + b"a" * 255) * 70_000 + b"\0"  # joined block by block: quadratic
    yield "gif comment in blocks", gif[:image_at] + comment + gif[image_at:]
    yield "gif comment behind the picture", gif[:-1] + comment + gif[-1:]
    frame = gif[image_at : image_at + 1] + struct.pack("<HHHH", 0, 0, 60_000, 60_000) + gif[image_at + 9 :]
    yield "gif frame larger than its screen", gif[:image_at] + frame


def others(small: Image.Image) -> Iterator[tuple[str, bytes]]:
    size = 54 + 1024
    header = struct.pack("<IiiHHIIiiII", 40, 5_000, 5_000, 1, 8, 1, 0, 0, 0, 256, 0)
    yield (
        "bmp runs of one pixel",
        b"BM" + struct.pack("<IHHI", size, 0, 0, size) + header + bytes(1024) + b"\1\5" * (9 * MB),
    )
    honest = b"II*\0" + struct.pack("<LHHHLL", 8, 1, 40_000, 7, 9 * MB - 26, 26) + bytes(4)
    honest += b"\1" * (9 * MB - len(honest))
    avif = encode(small, "AVIF", exif=honest)  # Pillow parses what it saves, so the harm is put in afterwards
    yield "avif exif", avif.replace(honest, exif_claiming(9 * MB, 65_535))
    heic = encode(Image.new("RGB", (2_000, 2_000), "red"), "HEIC", quality=10)
    size_box = heic.index(b"ispe") + 8
    yield "heic larger than it says", heic[:size_box] + struct.pack(">II", 64, 64) + heic[size_box + 8 :]
    animation = encode(small, "WEBP", save_all=True, append_images=[small.rotate(90)])
    canvas = animation.index(b"VP8X") + 12
    yield "webp canvas", animation[:canvas] + b"\xfe\xff\x00\xfe\xff\x00" + animation[canvas + 6 :]


def hostile() -> Iterator[tuple[str, bytes]]:
    """Every hostile file by name, one after the other, so that only one is in memory at a time."""
    small = Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    for family in (jpegs(small), pngs(), tiffs(), gifs(small), others(small)):
        yield from family
