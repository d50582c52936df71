"""Faces through the frames of a camera or a clip: the same face keeps its number, its box and scores are steadied.

The detector searches the whole frame only now and then; between searches it looks again just where the faces were,
which costs a few milliseconds. All smoothing goes by seconds, so that it does not depend on the frame rate.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from .detection import RefiningDetector
from .faces import Box, Face, iou_xyxy

SAME_FACE_IOU = 0.2  # a box of the last frame and one of this frame that share less are taken for two faces
ONE_PLACE_IOU = 0.5  # two followed boxes that share more have slid onto one face


@dataclass(frozen=True)
class Moment:
    """The probabilities that the model gave a face at one time, before smoothing."""

    t_s: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Track:
    """One face as it is seen now.

    ``id`` counts from 1 and is never given twice. ``face`` is steadied; ``scores`` are the smoothed probabilities,
    empty until the first were recorded; ``history`` are the recorded ones, oldest first.
    """

    id: int
    face: Face
    first_seen_s: float
    last_seen_s: float
    scores: dict[str, float] = field(default_factory=dict)
    history: tuple[Moment, ...] = ()

    @property
    def label(self) -> str | None:
        """The most probable class, or None where no scores were recorded."""
        return max(self.scores, key=self.scores.get) if self.scores else None


class FaceTracker:
    """Follows faces; knows nothing of expressions beyond the probabilities that the caller records.

    The whole frame is searched at least every ``search_every_s``, and at once when a face was lost. A face that is not
    seen keeps its number for ``forget_after_s``. ``smooth_scores_s`` is the time after which a new expression counts
    63%. Of each face's history the last ``history_s`` are kept; math.inf keeps all, as the timeline of a clip needs.
    Not for use from several threads at once.
    """

    def __init__(
        self,
        detector: RefiningDetector,
        *,
        search_every_s: float = 0.4,
        forget_after_s: float = 1.0,
        smooth_scores_s: float = 0.35,
        history_s: float = 30.0,
    ) -> None:
        self.detector = detector
        self.search_every_s, self.forget_after_s = search_every_s, forget_after_s
        self.smooth_scores_s, self.history_s = smooth_scores_s, history_s
        for name in ("search_every_s", "forget_after_s", "smooth_scores_s", "history_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a time in seconds and must not be negative")
        self.skipped = 0
        """Faces beyond the detector's cap in the last search."""
        self._followed: dict[int, _Followed] = {}
        self._next_id = 1
        self._now_s = self._searched_s = -math.inf
        self._image_wh: tuple[int, int] | None = None

    def update(self, image: Image.Image, t_s: float) -> tuple[Track, ...]:
        """The faces seen in an RGB frame taken at ``t_s`` seconds, in the order of their ids.

        Raises ValueError where time runs backwards. A frame of another size starts afresh, with new ids.
        """
        if not t_s >= self._now_s:
            raise ValueError(f"the frame at {t_s} s comes after one at {self._now_s} s; give frames in order of time")
        if image.size != self._image_wh:
            self._followed.clear()
            self._image_wh, self._searched_s = image.size, -math.inf
        self._now_s = t_s
        if t_s - self._searched_s >= self.search_every_s or not self._follow(image):
            self._search(image)
        self._forget()
        return tuple(one.track() for one in self._followed.values() if one.last_seen_s == t_s)

    def record(self, track_id: int, scores: Mapping[str, float], t_s: float) -> Track:
        """The track after the model's probabilities for its face at ``t_s`` went into it.

        Raises ValueError for a track that was forgotten, for times out of order and for other classes than before.
        """
        if track_id not in self._followed:
            raise ValueError(f"no face {track_id} is followed now; known are {sorted(self._followed) or 'none'}")
        followed = self._followed[track_id]
        followed.record(dict(scores), t_s, self.smooth_scores_s, self.history_s)
        return followed.track()

    def _in_sight(self) -> list["_Followed"]:
        """The faces of the latest frame that showed any."""
        last_frame_s = max((one.last_seen_s for one in self._followed.values()), default=-math.inf)
        return [one for one in self._followed.values() if one.last_seen_s == last_frame_s]

    def _follow(self, image: Image.Image) -> bool:
        """Look again where the faces were; False where one of them was lost."""
        in_sight = self._in_sight()
        found = self.detector.refine(image, [one.seen for one in in_sight])
        best_first = sorted(
            (pair for pair in zip(in_sight, found, strict=True) if pair[1] is not None),
            key=lambda pair: iou_xyxy(pair[0].seen.box_xyxy, pair[1].box_xyxy),
            reverse=True,
        )
        kept: list[tuple[_Followed, Face]] = []
        for one, face in best_first:
            if all(iou_xyxy(face.box_xyxy, other.box_xyxy) <= ONE_PLACE_IOU for _, other in kept):
                kept.append((one, face))
        if len(kept) < len(in_sight):
            return False
        for one, face in kept:
            one.see(face, self._now_s)
        return True

    def _search(self, image: Image.Image) -> None:
        detection = self.detector.detect(image)
        self._searched_s, self.skipped = self._now_s, detection.skipped
        pairs = sorted(
            (
                (iou_xyxy(one.seen.box_xyxy, face.box_xyxy), one.id, index)
                for one in self._followed.values()
                for index, face in enumerate(detection.faces)
            ),
            reverse=True,
        )
        id_of: dict[int, int] = {}
        for iou, track_id, index in pairs:
            if iou >= SAME_FACE_IOU and index not in id_of and track_id not in id_of.values():
                id_of[index] = track_id
        for index, face in enumerate(detection.faces):
            if index not in id_of:
                id_of[index] = self._next_id
                self._followed[self._next_id] = _Followed(self._next_id, face, self._now_s)
                self._next_id += 1
            self._followed[id_of[index]].see(face, self._now_s)

    def _forget(self) -> None:
        self._followed = {
            id_: one for id_, one in self._followed.items() if self._now_s - one.last_seen_s <= self.forget_after_s
        }


class _Followed:
    """What the tracker knows of one face; ``seen`` is where it last was, unsmoothed, so that following does not lag."""

    def __init__(self, id_: int, face: Face, t_s: float) -> None:
        self.id, self.seen = id_, face
        self.first_seen_s = self.last_seen_s = t_s
        self._steady = _Steadier()
        self._steadied = face
        self._scores: dict[str, float] = {}
        self._history: deque[Moment] = deque()

    def see(self, face: Face, t_s: float) -> None:
        self.seen, self.last_seen_s = face, t_s
        self._steadied = self._steady(face, t_s)

    def record(self, scores: dict[str, float], t_s: float, smooth_s: float, history_s: float) -> None:
        if self._history:
            elapsed_s = t_s - self._history[-1].t_s
            if elapsed_s < 0:
                raise ValueError(
                    f"scores at {t_s} s come after those at {self._history[-1].t_s} s; record them in order"
                )
            if scores.keys() != self._scores.keys():
                raise ValueError(
                    f"face {self.id} has the classes {', '.join(self._scores)}; {', '.join(scores)} were given"
                )
            weight = 1 - math.exp(-elapsed_s / smooth_s) if smooth_s > 0 else 1.0
            self._scores = {name: old + weight * (scores[name] - old) for name, old in self._scores.items()}
        else:
            self._scores = scores
        self._history.append(Moment(t_s, scores))
        while t_s - self._history[0].t_s > history_s:
            self._history.popleft()

    def track(self) -> Track:
        return Track(
            self.id, self._steadied, self.first_seen_s, self.last_seen_s, dict(self._scores), tuple(self._history)
        )


class _Steadier:
    """A one-euro filter over the box's corners and the landmarks: steady at rest, without lag in motion.

    Casiez, Roussel and Vogel, "1€ filter: a simple speed-based low-pass filter for noisy input in interactive systems",
    CHI 2012. Speeds are in face widths per second, so that near and far faces are treated alike.
    """

    REST_HZ = 1.0  # at rest, changes slower than this pass
    HZ_PER_SPEED = 8.0  # by how much the limit rises with each face width per second
    SPEED_HZ = 2.0  # smoothing of the speed itself

    def __init__(self) -> None:
        self._t_s: float | None = None
        self._points = self._speeds = np.zeros((0, 2))

    def __call__(self, face: Face, t_s: float) -> Face:
        """The face with its box and landmarks smoothed."""
        points = np.array([*_corners(face.box_xyxy), *(face.landmarks or ())])
        if self._t_s is None or len(points) != len(self._points):
            self._points, self._speeds = points, np.zeros_like(points)
        elif t_s > self._t_s:
            elapsed_s = t_s - self._t_s
            width = face.box_xyxy[2] - face.box_xyxy[0]
            speeds = (points - self._points) / (width * elapsed_s)
            self._speeds = self._speeds + _weight(self.SPEED_HZ, elapsed_s) * (speeds - self._speeds)
            speed = np.hypot(*self._speeds.mean(axis=0))  # of the face as a whole: all points are smoothed alike
            limit_hz = self.REST_HZ + self.HZ_PER_SPEED * speed
            self._points = self._points + _weight(limit_hz, elapsed_s) * (points - self._points)
        self._t_s = t_s
        (x0, y0), (x1, y1), *landmarks = (tuple(map(float, point)) for point in self._points)
        return Face((x0, y0, x1, y1), face.score, tuple(landmarks) if face.landmarks else None)


def _corners(box: Box) -> tuple[tuple[float, float], tuple[float, float]]:
    return (box[0], box[1]), (box[2], box[3])


def _weight(limit_hz: float, elapsed_s: float) -> float:
    """The share of the new value in a first-order low-pass of that cut-off frequency."""
    return 1 / (1 + 1 / (2 * math.pi * limit_hz * elapsed_s))
