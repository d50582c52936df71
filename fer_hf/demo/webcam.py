"""The Webcam tab: live boxes and labels, a timeline of probabilities, and nothing kept but on request."""

import threading
import time
from collections import deque
from dataclasses import dataclass, field

import gradio as gr

from fer_hf.demo.calls import answer_of, first_file
from fer_hf.demo.desk import Desk
from fer_hf.demo.limits import Line, Refused
from fer_hf.demo.shelf import Shelf
from fer_hf.demo.tabs import STATUS, frame, placeholder, tab_component
from fer_hf.demo.uploads import Upload
from fer_hf.faces import area_xyxy
from fer_hf.image_io import ImageLimits, read_image
from fer_hf.tracking import FaceTracker, Track

FRAME_LIMITS = ImageLimits(max_pixels=1280 * 960, max_bytes=1_000_000, formats=("JPEG",))
MAX_STREAMS = 8
MAX_FACES = 6
"""Faces of a frame that are looked at, largest first, so that a crowd does not slow a stream down."""
REMEMBERED_CLOSED = 256
"""Streams closed last, whose frames still on their way are refused; no page uses an id twice."""
IDLE_S = 10.0
LONGEST_S = 600.0
NOTICE = (
    '<div class="fer-notice" role="note"><strong>Before you start the camera.</strong> While it runs, small pictures '
    "of it are sent to the server this page comes from, looked at one by one and forgotten: nothing is kept, nobody "
    "else gets them. You see the expression a model <em>perceives</em>, not what anybody feels. It must not be used "
    "for decisions about people at work, at school or by the police. Have the consent of everyone in the picture.</div>"
)


@dataclass
class _Stream:
    tracker: FaceTracker
    desk: Desk
    started_at: float
    used_at: float
    lock: threading.Lock = field(default_factory=threading.Lock)


class Streams:
    """The trackers of the cameras that run now; they hold positions and probabilities, no pictures.

    A stream ends after ``IDLE_S`` without a frame. At most ``MAX_STREAMS`` run, each for at most ``LONGEST_S``.
    """

    def __init__(self, clock=time.monotonic) -> None:
        self._clock = clock
        self._closed: deque[str] = deque(maxlen=REMEMBERED_CLOSED)
        self._streams: dict[str, _Stream] = {}
        self._lock = threading.Lock()

    def look(self, stream_id: str, desk: Desk, frame: Upload) -> dict:
        """The faces in a frame of a stream: ``{"faces": [{"id", "box", "label", "score", "scores"}]}``.

        Faces are followed afresh, with new ids, from where another desk looks at them. Raises Refused where too many
        cameras run, this one has run for long, or it was closed.
        """
        stream = self._open(stream_id, desk)
        image = read_image(frame.data, limits=FRAME_LIMITS).image
        with stream.lock:
            now = self._clock()
            seen = stream.tracker.update(image, now)
            largest = sorted(seen, key=lambda track: area_xyxy(track.face.box_xyxy), reverse=True)[:MAX_FACES]
            scores = stream.desk.score([stream.desk.recognizer.align(image, track.face).crop for track in largest])
            tracks = [stream.tracker.record(track.id, row, now) for track, row in zip(largest, scores, strict=True)]
        return {"faces": [_as_record(track) for track in tracks], "size": image.size}

    def _open(self, stream_id: str, desk: Desk) -> _Stream:
        now = self._clock()
        with self._lock:
            for key in [key for key, one in self._streams.items() if now - one.used_at > IDLE_S]:
                del self._streams[key]
            stream = self._streams.get(stream_id)
            if stream is None and stream_id in self._closed:
                raise Refused("This camera was stopped.")
            if stream is None and len(self._streams) >= MAX_STREAMS:
                raise Refused(f"{MAX_STREAMS} cameras are running already. Busy, please try again in a moment.")
            if stream is None or stream.desk is not desk:  # what a tracker smooths belongs to one model's classes
                tracker = FaceTracker(desk.recognizer.detector, history_s=0)
                stream = _Stream(tracker, desk, now if stream is None else stream.started_at, now)
                self._streams[stream_id] = stream
            stream.used_at = now
        if now - stream.started_at > LONGEST_S:
            raise Refused(
                f"The camera has run for {LONGEST_S / 60:.0f} minutes and was paused; start it again to go on."
            )
        return stream

    def close(self, stream_id: str) -> None:
        """Forget a stream at once; nothing happens where it is unknown."""
        with self._lock:
            self._streams.pop(stream_id, None)
            self._closed.append(stream_id)


def _as_record(track: Track) -> dict:
    return {
        "id": track.id,
        "box": [round(value, 1) for value in track.face.box_xyxy],
        "label": track.label,
        "score": round(track.scores[track.label], 6),
        "scores": {name: round(score, 6) for name, score in track.scores.items()},
    }


def build_webcam_tab(shelf: Shelf, line: Line) -> gr.HTML:
    """The tab's one component."""
    streams = Streams()

    async def look(form) -> dict:
        stream_id, model = str(form.data.get("stream", ""))[:64], str(form.data.get("model", ""))
        return await answer_of(shelf.ready(model), line, lambda desk: streams.look(stream_id, desk, first_file(form)))

    def close(stream_id) -> dict:
        streams.close(str(stream_id)[:64])
        return {}

    return tab_component("webcam", _page_html(), "fer.webcamTab(element, server)", [look, close])


def _page_html() -> str:
    best = (
        '<p class="fer-speed" aria-live="off"></p><div class="fer-best" hidden><h3>Best picture so far</h3>'
        '<img alt="The best picture so far"><button class="fer-button" type="button" data-live="save">Save '
        "it</button></div>"
    )
    text = (
        "The live picture appears here with a box around each face, and below it how the probabilities of "
        "the largest face "
        "change."
    )
    return frame(NOTICE + _BUTTONS + STATUS + best, placeholder(text) + _LIVE, answer_label="Live view")


_BUTTONS = """<div class="fer-drop">
  <button class="fer-button fer-primary" type="button" data-live="start">Start the camera</button>
  <button class="fer-button" type="button" data-live="pause" hidden>Pause</button>
  <button class="fer-button" type="button" data-live="stop" hidden>Stop the camera</button>
  <p class="fer-hint"><label><input type="checkbox" data-live="keep"> Keep the best picture on this page</label></p>
</div>"""
_LIVE = """<div class="fer-live" hidden>
  <div class="fer-live-stage"><video playsinline muted aria-label="Camera"></video>
    <div class="fer-live-boxes"></div></div>
  <canvas class="fer-timeline" width="900" height="180" role="img"
    aria-label="Probabilities of the largest face over the last 20 seconds"></canvas>
  <ul class="fer-legend"></ul>
</div>"""
