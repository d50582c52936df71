"""Clips in and out: frames of an untrusted file within limits, and an annotated H.264 file that browsers play.

Decoding is FFmpeg's, through PyAV. Its wheels carry FFmpeg under the GPL, because of x264. Only common containers and
codecs are let in, nothing but the given file is ever opened, and what the header says is checked before any frame is
decoded; what it leaves out, or lies about, is checked again while frames come.
"""

import io
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from PIL import Image

if TYPE_CHECKING:
    import av

CONTAINERS = ("mov", "mp4", "matroska", "webm", "avi")
CODECS = {
    "h264": "H.264",
    "hevc": "HEVC",
    "vp8": "VP8",
    "vp9": "VP9",
    "libdav1d": "AV1",
    "av1": "AV1",
    "mpeg4": "MPEG-4",
    "mjpeg": "MJPEG",
}  # FFmpeg's decoders and what they read
TIME_BASE = Fraction(1, 90_000)
SHORTEST_HOLD_S = 1 / 30
"""How long the last frame of a new clip is shown at least."""
MISSING_S = 0.5
"""A clip whose frames end by more than this before the time that its header gives gets a note."""
_UPRIGHT = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}
_BT709 = 1  # the number of BT.709 in H.264's tables of matrices, primaries and transfer curves


class VideoError(ValueError):
    """A clip that cannot or must not be read; the message is one sentence for the person who gave it."""


@dataclass(frozen=True)
class VideoLimits:
    """What is accepted: bytes of the file, pixels of a frame, seconds, and frames (which bound slow-motion clips)."""

    max_bytes: int = 50_000_000
    max_pixels: int = 9_000_000
    max_duration_s: float = 60.0
    max_frames: int = 15_000


DEFAULT_LIMITS = VideoLimits()


@dataclass(frozen=True)
class VideoInfo:
    """What a clip is: upright size in pixels, seconds and frame rate where the header tells, and its sound."""

    width: int
    height: int
    duration_s: float | None
    frames_per_s: float | None
    codec: str
    has_audio: bool


@dataclass(frozen=True)
class VideoFrame:
    """One frame, RGB and upright, at its time from the clip's first frame."""

    t_s: float
    image: Image.Image


@dataclass(frozen=True)
class Progress:
    """How far a rewrite has come; ``share`` in [0, 1] is None where the clip's length is not known before its end."""

    frames: int
    t_s: float
    share: float | None


class VideoReader:
    """The frames of a clip, from a path, bytes or a binary file; a context manager.

    Raises VideoError, on opening for what the header shows or where no frame can be decoded, and from ``frames`` for
    limits that only the data shows to be exceeded. Damage further on costs the frames it hits. ``end_s``, when the last
    frame ends, and ``notes``, a sentence for each thing that is missing, are whole once the frames have been read.
    """

    def __init__(self, source: str | os.PathLike | bytes | BinaryIO, limits: VideoLimits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._file = _open(source)
        self._owns_file = self._file is not source
        self._container: av.container.InputContainer | None = None
        self.end_s = 0.0
        self._damaged, self._shortfall = False, ""
        try:
            self._open_container()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        if self._container is not None:
            self._container.close()
        if self._owns_file:
            self._file.close()

    @property
    def notes(self) -> list[str]:
        """What the person who gave the clip should know of the frames read so far."""
        found = ["Parts of the clip are damaged; what could be decoded of it is used."] if self._damaged else []
        return found + ([self._shortfall] if self._shortfall else [])

    def frames(self, *, max_frames_per_s: float | None = None, max_side_px: int | None = None) -> Iterator[VideoFrame]:
        """The frames in order of time, once; fewer where the clip has more per second, smaller where it is larger."""
        size = self._size(max_side_px)
        interval_s = 1 / max_frames_per_s if max_frames_per_s else 0.0
        due_s, last_s = 0.0, -1.0
        for t_s, frame in self._timed_frames():
            if t_s <= last_s or t_s + 1e-6 < due_s:
                continue
            due_s = max(due_s + interval_s, t_s)
            last_s = t_s
            yield VideoFrame(t_s, self._to_image(frame, size))

    def _open_container(self) -> None:
        import av
        from av.stream import Disposition

        size = self._file.seek(0, io.SEEK_END)
        self._file.seek(0)
        if size > self.limits.max_bytes:
            raise VideoError(
                f"The clip has {size / 1e6:.0f} MB; at most {self.limits.max_bytes / 1e6:.0f} MB are taken."
            )
        try:
            self._container = av.open(
                self._file,
                mode="r",
                options={"max_pixels": str(self.limits.max_pixels), "threads": "1"},
                container_options={"format_whitelist": ",".join(CONTAINERS), "codec_whitelist": ",".join(CODECS)},
                metadata_errors="replace",
                io_open=_refuse_other_files,
            )
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError("This is not a video in MP4, MOV, WebM, MKV or AVI form, or it is damaged.") from error
        streams = [one for one in self._container.streams.video if not one.disposition & Disposition.attached_pic]
        if not streams:
            raise VideoError("The file holds no video.")
        self._stream = streams[0]
        self._check_header()
        self._stream.codec_context.options = {"max_pixels": str(self.limits.max_pixels)}
        # One thread: on damaged HEVC, FFmpeg's frame threads were seen to wait for each other for ever.
        self._stream.thread_type, self._stream.thread_count = "NONE", 1
        self._decoded = self._decode()
        first = next(self._decoded, None)
        if first is None:
            raise VideoError("The clip has no frame that can be decoded.")
        self._quarter_turns = round(first.rotation / 90) % 4
        self._decoded = itertools.chain([first], self._decoded)
        self.info = self._describe()

    def _check_header(self) -> None:
        context = self._stream.codec_context
        if context is None or context.name not in CODECS:
            raise VideoError(f"The clip's codec is not supported; {', '.join(dict.fromkeys(CODECS.values()))} are.")
        if not 0 < context.width * context.height <= self.limits.max_pixels:  # FFmpeg gives 0 for a size it refused
            size = f"{context.width}×{context.height}" if context.width else "too many, or no known number of,"
            raise VideoError(
                f"The clip's frames have {size} pixels; at most {self.limits.max_pixels / 1e6:g} megapixels are taken."
            )
        duration_s = self._duration_s()
        if duration_s is not None and duration_s > self.limits.max_duration_s + 0.5:
            raise VideoError(f"The clip lasts {duration_s:.0f} s; at most {self.limits.max_duration_s:g} s are taken.")
        if self._stream.frames > self.limits.max_frames:
            raise VideoError(f"The clip has {self._stream.frames} frames; at most {self.limits.max_frames} are taken.")

    def _duration_s(self) -> float | None:
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        return self._container.duration / 1e6 if self._container.duration is not None else None

    def _describe(self) -> VideoInfo:
        width, height = self._size()
        rate = self._stream.average_rate
        return VideoInfo(
            *((height, width) if self._quarter_turns % 2 else (width, height)),
            duration_s=self._duration_s(),
            frames_per_s=float(rate) if rate else None,
            codec=CODECS[self._stream.codec_context.name],
            has_audio=bool(self._container.streams.audio),
        )

    def _decode(self) -> Iterator["av.VideoFrame"]:
        import av

        for packet in self._packets():
            try:
                yield from self._stream.codec_context.decode(packet)
            except (av.error.FFmpegError, ValueError):
                self._damaged = True

    def _packets(self) -> Iterator["av.Packet"]:
        """The packets up to the first that cannot be read; the last one is empty and brings out what was held back."""
        import av

        try:
            for packet in self._container.demux(self._stream):
                self._damaged |= packet.is_corrupt
                yield packet
        except (av.error.FFmpegError, ValueError):
            self._damaged = True
            last = av.Packet()
            last.time_base = self._stream.time_base
            yield last

    def _timed_frames(self) -> Iterator[tuple[float, "av.VideoFrame"]]:
        """Each frame with its seconds from the first; a frame without a time comes one frame length after the last."""
        step_s = 1 / (self.info.frames_per_s or 25.0)
        start_s = last_s = None
        for count, frame in enumerate(self._decoded):
            at_s = frame.time if frame.time is not None else (0.0 if last_s is None else last_s + step_s)
            start_s = at_s if start_s is None else start_s
            last_s = at_s
            lasts_s = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else step_s
            if at_s - start_s > self.limits.max_duration_s + 0.5 or count >= self.limits.max_frames:
                raise VideoError(
                    f"The clip is longer than its header says; at most {self.limits.max_duration_s:g} s and "
                    f"{self.limits.max_frames} frames are taken."
                )
            self.end_s = max(self.end_s, min(at_s - start_s + lasts_s, self.limits.max_duration_s + 0.5))
            yield at_s - start_s, frame
        said_s = self.info.duration_s or 0.0
        if self.end_s + max(start_s or 0.0, 0.0) < said_s - MISSING_S:
            self._shortfall = (
                f"The frames of the clip end after {self.end_s:.1f} s, though its header says {said_s:.1f} s."
            )

    def _size(self, max_side_px: int | None = None) -> tuple[int, int]:
        """Width and height of frames as stored, with square pixels, the longer side bounded."""
        context = self._stream.codec_context
        aspect = float(self._stream.sample_aspect_ratio or 1)  # of one stored pixel
        aspect = aspect if 0.25 <= aspect <= 4 else 1.0
        width, height = context.width * min(aspect, 1.0), context.height / max(aspect, 1.0)
        shrink = min(1.0, max_side_px / max(width, height)) if max_side_px else 1.0
        return max(round(width * shrink), 1), max(round(height * shrink), 1)

    def _to_image(self, frame: "av.VideoFrame", size: tuple[int, int]) -> Image.Image:
        array = frame.to_ndarray(format="rgb24", width=size[0], height=size[1], interpolation="AREA")
        image = Image.fromarray(array)
        return image.transpose(_UPRIGHT[self._quarter_turns]) if self._quarter_turns else image


class VideoWriter:
    """An H.264 MP4 without sound, written frame by frame; a context manager.

    The file appears whole at ``target`` when the block ends well, and not at all when it ends with an exception. The
    first frame sets the size; odd sizes lose one row or column, which H.264's colour needs.
    """

    def __init__(self, target: str | os.PathLike, *, quality_crf: int = 23) -> None:
        self.target = Path(target)
        self.quality_crf = quality_crf
        self._stream: av.VideoStream | None = None
        self._shown: av.VideoFrame | None = None
        self._end_pts = 0

    def __enter__(self) -> Self:
        import av

        descriptor, part = tempfile.mkstemp(prefix=f".{self.target.stem}-", suffix=".mp4", dir=self.target.parent)
        os.close(descriptor)
        self._part = Path(part)
        self._container = av.open(part, mode="w", format="mp4", options={"movflags": "+faststart"})
        return self

    def write(self, image: Image.Image, t_s: float) -> None:
        """Add a frame that is shown from ``t_s`` on; times must grow."""
        import av

        if self._stream is None:
            self._add_stream(max(image.width // 2 * 2, 2), max(image.height // 2 * 2, 2))
        frame = av.VideoFrame.from_image(image.convert("RGB")).reformat(
            self._stream.width,
            self._stream.height,
            "yuv420p",
            dst_colorspace="ITU709",
            dst_color_range="MPEG",
        )
        frame.pts, frame.time_base = round(t_s / TIME_BASE), TIME_BASE
        self._encode_shown(frame.pts)
        self._shown = frame

    def hold_until(self, end_s: float) -> None:
        """Show the last frame until then; without this it is shown for ``SHORTEST_HOLD_S``."""
        self._end_pts = round(end_s / TIME_BASE)

    def _encode_shown(self, end_pts: int) -> None:
        """Encode the frame that is shown until now, whose duration is known only when the next one comes."""
        if self._shown is not None:
            self._shown.duration = end_pts - self._shown.pts
            self._container.mux(self._stream.encode(self._shown))

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        try:
            if kind is None and self._shown is not None:
                self._encode_shown(max(self._end_pts, self._shown.pts + round(SHORTEST_HOLD_S / TIME_BASE)))
                self._container.mux(self._stream.encode())
            self._container.close()
            if kind is None:
                self._publish()
        finally:
            self._part.unlink(missing_ok=True)

    def _publish(self) -> None:
        if self._stream is None:
            raise VideoError("No frame was written, so there is no clip.")
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
        self._part.chmod(0o644)
        self._part.replace(self.target)

    def _add_stream(self, width: int, height: int) -> None:
        from av.codec.context import Flags

        # No B-frames: with them and uneven times, FFmpeg's MP4 says that the clip ends before its last frames.
        options = {"preset": "veryfast", "crf": str(self.quality_crf), "bf": "0"}
        self._stream = self._container.add_stream("libx264", rate=30, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        context = self._stream.codec_context
        context.time_base, context.thread_count = TIME_BASE, 2
        context.flags |= Flags.frame_duration
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = 1  # limited


def rewrite_video(
    reader: VideoReader,
    target: str | os.PathLike,
    change: Callable[[VideoFrame], Image.Image],
    *,
    max_frames_per_s: float = 15.0,
    max_side_px: int = 1280,
) -> Iterator[Progress]:
    """Write a clip whose frames ``change`` made from those of another, and tell the progress after each.

    The sound is left out (``reader.info.has_audio`` says whether there was any). To cancel, stop iterating and close
    the generator: then, as after an exception, nothing is left at ``target``. The file is there once the iteration has
    ended, and lasts as long as the other clip.
    """
    duration_s = reader.info.duration_s
    with VideoWriter(target) as writer:
        for count, frame in enumerate(reader.frames(max_frames_per_s=max_frames_per_s, max_side_px=max_side_px), 1):
            writer.write(change(frame), frame.t_s)
            yield Progress(count, frame.t_s, min(frame.t_s / duration_s, 1.0) if duration_s else None)
        writer.hold_until(reader.end_s)


def _open(source: str | os.PathLike | bytes | BinaryIO) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, str | os.PathLike):
        try:
            return Path(source).open("rb")
        except OSError as error:
            raise VideoError(f"The clip cannot be opened: {error.strerror}.") from error
    return source


def _refuse_other_files(url: str, flags: int, options: dict[str, Any]) -> BinaryIO:
    """For FFmpeg's wish to open a file that the clip names: never granted."""
    raise VideoError("The clip refers to other files, which are not opened.")
