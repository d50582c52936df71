import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from fer_hf.video import VideoError, VideoFrame, VideoLimits, VideoReader, VideoWriter, rewrite_video

SIZE = (64, 48)
RED = (200, 30, 60)


def picture(size=SIZE, *, grey: int = 40) -> Image.Image:
    """Grey with a red upper left quarter, so that turning it shows."""
    image = Image.new("RGB", size, (grey,) * 3)
    image.paste(RED, (0, 0, size[0] // 2, size[1] // 2))
    return image


def noise(number: int) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 255, (SIZE[1] // 4, SIZE[0] // 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(SIZE)


def encode(
    ticks=range(10),
    *,
    rate=10,
    codec="libx264",
    container="mp4",
    size=SIZE,
    aspect=None,
    options=None,
    sound=False,
    noisy=False,
) -> bytes:
    """A tiny clip with one frame at each of the ticks, ``rate`` of which make a second; noisy ones take more bytes."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=options or {}) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if sound:
            audio = out.add_stream("aac", rate=16_000, layout="mono")
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 16_000
            out.mux(audio.encode(silence))
            out.mux(audio.encode())
        for tick in ticks:
            shown = noise(tick) if noisy else picture(size, grey=40 + 5 * (tick % 20))
            frame = av.VideoFrame.from_image(shown)
            frame.pts, frame.time_base = tick, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def times(reader: VideoReader, **options) -> list[float]:
    return [round(frame.t_s, 3) for frame in reader.frames(**options)]


@pytest.fixture(scope="module")
def clip() -> bytes:
    return encode()


@pytest.mark.parametrize(
    ("codec", "container", "name"),
    [
        ("libx264", "mp4", "H.264"),
        ("libx264", "mov", "H.264"),
        ("libvpx-vp9", "webm", "VP9"),
        ("libvpx", "webm", "VP8"),
        ("libx264", "matroska", "H.264"),
        ("mpeg4", "avi", "MPEG-4"),
        ("mjpeg", "avi", "MJPEG"),
    ],
)
def test_frames_come_with_times_and_colours(codec, container, name):
    with VideoReader(encode(range(4), codec=codec, container=container)) as reader:
        frames = list(reader.frames())
    assert (reader.info.width, reader.info.height) == SIZE
    assert reader.info.codec == name
    assert reader.info.duration_s == pytest.approx(0.4)
    assert reader.info.frames_per_s == pytest.approx(10)
    assert not reader.info.has_audio
    assert [frame.t_s for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert {(frame.image.mode, frame.image.size) for frame in frames} == {("RGB", SIZE)}
    assert frames[0].image.getpixel((8, 8)) == pytest.approx(RED, abs=20)
    assert frames[0].image.getpixel((55, 40)) == pytest.approx((40, 40, 40), abs=8)


def test_a_clip_is_read_from_a_path_and_from_an_open_file(clip, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip)
    with VideoReader(path) as reader:
        assert len(times(reader)) == 10
    with path.open("rb") as file:
        with VideoReader(file) as reader:
            assert len(times(reader)) == 10
        assert not file.closed


@pytest.mark.parametrize(
    ("matrix", "size", "red_corner"),
    [
        ((1, 0, 0, 1), SIZE, (8, 8)),
        ((0, 1, -1, 0), SIZE[::-1], (40, 8)),  # a phone held upright: a quarter turn clockwise
        ((-1, 0, 0, -1), SIZE, (55, 40)),
        ((0, -1, 1, 0), SIZE[::-1], (8, 55)),
    ],
)
def test_the_rotation_in_the_header_is_applied(clip, matrix, size, red_corner):
    # tkhd's matrix a b u / c d v / x y w takes (x, y) to (ax + cy, bx + dy); u, v, w are 2.30, the others 16.16.
    one = 1 << 16
    a, b, c, d = (value * one for value in matrix)
    at = clip.index(struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30), clip.index(b"tkhd"))
    turned = clip[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + clip[at + 36 :]
    with VideoReader(turned) as reader:
        frame = next(reader.frames())
    assert (reader.info.width, reader.info.height) == frame.image.size == size
    assert frame.image.getpixel(red_corner) == pytest.approx(RED, abs=20)
    opposite = (size[0] - 1 - red_corner[0], size[1] - 1 - red_corner[1])
    assert frame.image.getpixel(opposite) == pytest.approx((40, 40, 40), abs=8)


def test_fewer_and_smaller_frames_on_request(clip):
    with VideoReader(clip) as reader:
        frames = list(reader.frames(max_frames_per_s=5, max_side_px=32))
    assert [round(frame.t_s, 3) for frame in frames] == [0, 0.2, 0.4, 0.6, 0.8]
    assert frames[0].image.size == (32, 24)


def test_small_frames_are_not_enlarged(clip):
    with VideoReader(clip) as reader:
        assert next(reader.frames(max_side_px=1000)).image.size == SIZE


def test_uneven_times_are_kept_and_start_at_zero():
    with VideoReader(encode((7, 8, 11, 20))) as reader:
        assert times(reader) == [0, 0.1, 0.4, 1.3]


def test_pixels_that_are_not_square_are_made_so():
    with VideoReader(encode(range(2), aspect=Fraction(2, 1))) as reader:
        assert next(reader.frames()).image.size == (64, 24)
        assert (reader.info.width, reader.info.height) == (64, 24)


def test_sound_is_told():
    with VideoReader(encode(sound=True)) as reader:
        assert reader.info.has_audio
        assert len(times(reader)) == 10


@pytest.mark.parametrize("codec_container", [("libx264", "mp4"), ("libvpx-vp9", "webm"), ("mjpeg", "avi")])
@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (VideoLimits(max_bytes=500), r"at most 0 MB are taken"),
        (VideoLimits(max_pixels=3000), r"at most 0.003 megapixels are taken"),
        (VideoLimits(max_duration_s=0.4), r"The clip lasts 1 s; at most 0.4 s are taken"),
    ],
)
def test_limits_are_held_before_a_frame_is_decoded(monkeypatch, codec_container, limits, message):
    codec, container = codec_container
    monkeypatch.setattr(VideoReader, "_decode", lambda self: pytest.fail("a frame was asked for"))
    with pytest.raises(VideoError, match=message):
        VideoReader(encode(codec=codec, container=container), limits)


def test_the_number_of_frames_is_limited_from_the_header(clip):
    with pytest.raises(VideoError, match="has 10 frames; at most 9"):
        VideoReader(clip, VideoLimits(max_frames=9))


def test_a_recording_without_a_length_is_limited_while_it_is_read():
    # What browsers record has no duration in its header.
    recording = encode(range(20), codec="libvpx", container="webm", options={"live": "1"})
    with VideoReader(recording) as reader:
        assert reader.info.duration_s is None
        assert len(times(reader)) == 20
    for limits in (VideoLimits(max_duration_s=1.0), VideoLimits(max_frames=12)):
        with VideoReader(recording, limits) as reader:
            frames = reader.frames()
            assert next(frames).t_s == 0
            with pytest.raises(VideoError, match="longer than its header says"):
                list(frames)


def test_what_is_no_clip_is_refused_in_one_sentence(tmp_path):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(encode(range(2)))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n".encode()
    picture_file = io.BytesIO()
    picture().save(picture_file, "PNG")
    for data in (b"", b"\0" * 5000, b"not a video", playlist, f"ffconcat version 1.0\nfile {secret}".encode()):
        with pytest.raises(VideoError, match="This is not a video"):
            VideoReader(data)
    with pytest.raises(VideoError, match="This is not a video"):
        VideoReader(picture_file.getvalue())


def test_a_missing_file_is_refused_without_its_path(tmp_path):
    with pytest.raises(VideoError, match="cannot be opened: No such file or directory") as caught:
        VideoReader(tmp_path / "absent.mp4")
    assert "absent" not in str(caught.value)


def test_sound_alone_is_refused():
    with pytest.raises(VideoError, match="holds no video"):
        VideoReader(sound_only())


def sound_only() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        audio = out.add_stream("aac", rate=16_000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16_000
        out.mux(audio.encode(silence))
        out.mux(audio.encode())
    return buffer.getvalue()


def test_other_codecs_are_refused():
    with pytest.raises(VideoError, match=r"codec is not supported; H\.264, HEVC"):
        VideoReader(encode(codec="ffv1", container="matroska"))


def test_damaged_clips_raise_only_the_one_exception():
    rng = np.random.default_rng(0)
    read, refusals = 0, []
    for codec, container in (("libx264", "mp4"), ("libvpx-vp9", "webm"), ("mpeg4", "avi")):
        whole = encode(range(6), codec=codec, container=container)
        for turn in range(40):
            data = bytearray(whole)
            for at in rng.integers(0, len(data), rng.integers(1, 10)):
                data[at] = rng.integers(0, 256)
            if turn % 4 == 0:
                del data[rng.integers(0, len(data)) :]
            try:
                with VideoReader(bytes(data)) as reader:
                    assert len(times(reader)) <= 7
                read += 1
            except VideoError as error:
                refusals.append(str(error))
    assert read >= 30
    assert len(refusals) >= 20
    assert all(refusal.endswith(".") for refusal in refusals)


@pytest.mark.parametrize(
    ("codec", "container", "share", "frames", "notes"),
    [
        ("libx264", "mp4", 0.99, range(27, 30), ["Parts of the clip are damaged"]),
        ("libx264", "mp4", 0.6, range(14, 20), ["Parts of the clip are damaged", "though its header says 3.0 s"]),
        ("libvpx", "webm", 0.6, range(14, 20), ["though its header says 3.0 s"]),
        ("mpeg4", "avi", 0.8, range(14, 25), ["Parts of the clip are damaged"]),
        ("libvpx", "webm", 1.0, [30], []),
        ("libx264", "mp4", 1.0, [30], []),
    ],
)
def test_a_clip_that_was_cut_off_gives_what_it_still_holds_and_says_so(
    tmp_path, codec, container, share, frames, notes
):
    path = tmp_path / "clip"
    path.write_bytes(encode(range(30), codec=codec, container=container, noisy=True))
    if container == "mp4":  # the index comes first, as phones and editors put it for the web
        path = start_at_once(path)
    data = path.read_bytes()
    with VideoReader(data[: int(len(data) * share)]) as reader:
        seen = times(reader)
    assert len(seen) in frames
    assert seen[:10] == [round(0.1 * number, 3) for number in range(10)]
    assert len(reader.notes) == len(notes)
    for note, expected in zip(reader.notes, notes, strict=True):
        assert expected in note
        assert note.endswith(".")


def start_at_once(path: Path) -> Path:
    target = path.with_name("first.mp4")
    with av.open(path) as given, av.open(target, "w", format="mp4", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return target


def test_damage_in_the_middle_costs_the_frames_it_hits():
    whole = encode(range(20), codec="mjpeg", container="avi")
    starts = [at for at in range(whole.index(b"movi"), len(whole)) if whole[at : at + 4] == b"00dc"]
    damaged = bytearray(whole)
    damaged[starts[5] + 8 : starts[6]] = bytes(starts[6] - starts[5] - 8)
    with VideoReader(bytes(damaged)) as reader:
        assert times(reader) == [round(0.1 * number, 3) for number in range(20) if number != 5]
    assert len(reader.notes) == 1


def test_what_is_written_is_h264_that_starts_at_once(tmp_path):
    target = tmp_path / "out.mp4"
    with VideoWriter(target) as writer:
        for t_s in (0.0, 0.05, 0.3):
            writer.write(picture((65, 49)), t_s)
        assert not target.exists()
    data = target.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with VideoReader(target) as reader:
        frames = list(reader.frames())
        assert reader._stream.pix_fmt == "yuv420p"
    assert reader.info.codec == "H.264"
    assert [frame.t_s for frame in frames] == pytest.approx([0, 0.05, 0.3], abs=1e-3)
    assert frames[0].image.size == (64, 48)
    assert frames[0].image.getpixel((8, 8)) == pytest.approx(RED, abs=6)
    assert list(tmp_path.iterdir()) == [target]


def test_a_broken_off_write_leaves_nothing(tmp_path):
    def break_off() -> None:
        with VideoWriter(tmp_path / "out.mp4") as writer:
            writer.write(picture(), 0.0)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        break_off()
    with pytest.raises(VideoError, match="No frame was written"), VideoWriter(tmp_path / "out.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def brighten(frame: VideoFrame) -> Image.Image:
    return frame.image.point(lambda value: min(value + 60, 255))


def test_a_clip_is_rewritten_with_progress(clip, tmp_path):
    target = tmp_path / "out.mp4"
    with VideoReader(clip) as reader:
        steps = list(rewrite_video(reader, target, brighten, max_frames_per_s=5))
    assert [step.frames for step in steps] == [1, 2, 3, 4, 5]
    assert [step.share for step in steps] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    with VideoReader(target) as reader:
        frames = list(reader.frames())
    assert [frame.t_s for frame in frames] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8], abs=1e-3)
    assert frames[0].image.getpixel((55, 40)) == pytest.approx((100, 100, 100), abs=8)


@pytest.mark.parametrize(
    ("ticks", "rate", "seconds"),
    [
        (range(5), 1, 5.0),  # slides: the last one is shown for a second too
        ([0], 1, 1.0),
        (range(31), 10, 3.1),  # fewer are written than there were
        ([0, 5, 6, 7, 30, 31, 90], 10, 9.1),  # uneven times
    ],
)
def test_a_rewritten_clip_lasts_as_long_as_the_other(tmp_path, ticks, rate, seconds):
    target = tmp_path / "out.mp4"
    with VideoReader(encode(ticks, rate=rate, container="matroska")) as reader:
        for _ in rewrite_video(reader, target, brighten, max_frames_per_s=5):
            pass
    assert reader.end_s == pytest.approx(seconds)
    with VideoReader(target) as again:
        frames = times(again)
    assert again.info.duration_s == pytest.approx(seconds, abs=0.002)
    assert again.end_s == pytest.approx(seconds, abs=0.002)
    assert frames[-1] < seconds


def test_a_cancelled_rewrite_leaves_what_was_there(clip, tmp_path):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"before")
    with VideoReader(clip) as reader:
        steps = rewrite_video(reader, target, brighten)
        next(steps)
        assert len(list(tmp_path.iterdir())) == 2
        steps.close()
    assert list(tmp_path.iterdir()) == [Path(target)]
    assert target.read_bytes() == b"before"
