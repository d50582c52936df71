import math
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, ImageOps

from fer_hf.detection import Detection, MTCNNDetector
from fer_hf.faces import Face, iou_xyxy
from fer_hf.tracking import FaceTracker, Moment

FRAME = Image.new("RGB", (640, 480))


def face_at(x: float, y: float, width: float = 80.0) -> Face:
    height = 1.25 * width
    marks = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
    return Face((x, y, x + width, y + height), 0.99, tuple((x + u * width, y + v * height) for u, v in marks))


class ScriptedDetector:
    """A detector whose answers are set from outside: ``faces`` are there; refine sees one within half its width."""

    def __init__(self, *faces: Face, skipped: int = 0) -> None:
        self.faces, self.skipped = faces, skipped
        self.searches = self.looks = 0

    def detect(self, image: Image.Image) -> Detection:
        self.searches += 1
        return Detection(self.faces, self.skipped)

    def refine(self, image: Image.Image, faces: Sequence[Face]) -> tuple[Face | None, ...]:
        self.looks += 1
        return tuple(self._nearest(face) for face in faces)

    def _nearest(self, face: Face) -> Face | None:
        def distance(other: Face) -> float:
            return math.dist(face.box_xyxy[:2], other.box_xyxy[:2])

        nearest = min(self.faces, key=distance, default=None)
        return nearest if nearest and distance(nearest) < 40 else None


def ids(tracks) -> list[int]:
    return [track.id for track in tracks]


def test_without_faces_there_are_no_tracks():
    assert FaceTracker(ScriptedDetector()).update(FRAME, 0.0) == ()


def test_the_whole_frame_is_searched_only_now_and_then():
    detector = ScriptedDetector(face_at(100, 100))
    tracker = FaceTracker(detector, search_every_s=0.5)
    for frame in range(21):  # two seconds at ten frames a second
        assert ids(tracker.update(FRAME, frame / 10)) == [1]
    assert detector.searches == 5  # at 0, 0.5, 1.0, 1.5 and 2.0 s
    assert detector.looks == 16


def test_a_face_that_jumps_is_searched_for_at_once_and_keeps_its_number_where_boxes_overlap():
    detector = ScriptedDetector(face_at(100, 100))
    tracker = FaceTracker(detector, search_every_s=10)
    tracker.update(FRAME, 0.0)
    detector.faces = (face_at(145, 100),)  # too far to be seen by refine; IoU 35 / 125
    (track,) = tracker.update(FRAME, 0.1)
    assert detector.searches == 2
    assert track.id == 1
    assert track.first_seen_s == 0.0
    assert track.last_seen_s == 0.1


def test_a_face_that_jumps_far_is_another_face():
    detector = ScriptedDetector(face_at(100, 100))
    tracker = FaceTracker(detector)
    tracker.update(FRAME, 0.0)
    detector.faces = (face_at(400, 100),)
    assert ids(tracker.update(FRAME, 0.1)) == [2]


def test_two_faces_keep_their_numbers_whatever_order_the_detector_gives():
    left, right = face_at(100, 100), face_at(300, 100)
    detector = ScriptedDetector(left, right)
    tracker = FaceTracker(detector, search_every_s=0)
    first = tracker.update(FRAME, 0.0)
    detector.faces = (face_at(305, 102), face_at(96, 101))
    second = tracker.update(FRAME, 0.1)
    assert ids(first) == ids(second) == [1, 2]
    assert second[0].face.box_xyxy[0] < 110
    assert second[1].face.box_xyxy[0] > 290


def test_a_hidden_face_gets_its_number_back_until_it_is_forgotten():
    detector = ScriptedDetector(face_at(100, 100), face_at(300, 100))
    tracker = FaceTracker(detector, search_every_s=0.2, forget_after_s=1.0)
    tracker.update(FRAME, 0.0)
    detector.faces = (face_at(100, 100),)
    assert ids(tracker.update(FRAME, 0.1)) == [1]
    detector.faces = (face_at(100, 100), face_at(305, 100))
    assert ids(tracker.update(FRAME, 0.9)) == [1, 2]
    detector.faces = (face_at(100, 100),)
    for tenth in range(10, 21):
        assert ids(tracker.update(FRAME, tenth / 10)) == [1]
    detector.faces = (face_at(100, 100), face_at(305, 100))
    assert ids(tracker.update(FRAME, 2.5)) == [1, 3]


def test_two_tracks_never_follow_one_face():
    detector = ScriptedDetector(face_at(100, 100), face_at(130, 100, width=90))
    tracker = FaceTracker(detector, search_every_s=10)
    assert len(tracker.update(FRAME, 0.0)) == 2
    detector.faces = (face_at(112, 100),)  # both would be seen here
    (track,) = tracker.update(FRAME, 0.1)
    assert detector.searches == 2
    assert iou_xyxy(track.face.box_xyxy, face_at(112, 100).box_xyxy) > 0.7


def test_a_frame_of_another_size_starts_afresh():
    tracker = FaceTracker(ScriptedDetector(face_at(100, 100)), search_every_s=10)
    assert ids(tracker.update(FRAME, 0.0)) == [1]
    assert ids(tracker.update(Image.new("RGB", (480, 640)), 0.1)) == [2]


def test_the_number_of_faces_left_out_is_told():
    tracker = FaceTracker(ScriptedDetector(face_at(100, 100), skipped=7))
    tracker.update(FRAME, 0.0)
    assert tracker.skipped == 7


@pytest.mark.parametrize("t_s", [0.9, math.nan])
def test_time_must_not_run_backwards(t_s):
    tracker = FaceTracker(ScriptedDetector())
    tracker.update(FRAME, 1.0)
    with pytest.raises(ValueError, match=r"comes after one at 1\.0 s"):
        tracker.update(FRAME, t_s)


def test_negative_durations_are_refused():
    with pytest.raises(ValueError, match="search_every_s is -1"):
        FaceTracker(ScriptedDetector(), search_every_s=-1)


@pytest.mark.parametrize("rate_hz", [5, 10, 50])
def test_scores_are_smoothed_by_seconds_not_by_frames(rate_hz):
    tracker = FaceTracker(ScriptedDetector(face_at(100, 100)), smooth_scores_s=0.4)
    (track,) = tracker.update(FRAME, 0.0)
    assert track.scores == {}
    assert track.label is None
    track = tracker.record(1, {"happy": 0.0, "sad": 1.0}, 0.0)
    assert track.label == "sad"
    for step in range(1, round(0.4 * rate_hz) + 1):
        track = tracker.record(1, {"happy": 1.0, "sad": 0.0}, step / rate_hz)
    assert track.scores["happy"] == pytest.approx(1 - math.exp(-1))
    assert sum(track.scores.values()) == pytest.approx(1)


def test_history_holds_the_scores_as_recorded_for_so_long():
    tracker = FaceTracker(ScriptedDetector(face_at(100, 100)), history_s=1.0)
    tracker.update(FRAME, 0.0)
    for half in range(6):
        tracker.record(1, {"happy": half / 10, "sad": 1 - half / 10}, half / 2)
    (track,) = tracker.update(FRAME, 2.5)
    assert [moment.t_s for moment in track.history] == [1.5, 2.0, 2.5]
    assert track.history[-1] == Moment(2.5, {"happy": 0.5, "sad": 0.5})


def test_scores_for_nobody_of_other_classes_or_out_of_order_are_refused():
    tracker = FaceTracker(ScriptedDetector(face_at(100, 100)))
    tracker.update(FRAME, 0.0)
    with pytest.raises(ValueError, match="no face 5"):
        tracker.record(5, {"happy": 1.0}, 0.0)
    tracker.record(1, {"happy": 1.0}, 0.5)
    with pytest.raises(ValueError, match="record them in order"):
        tracker.record(1, {"happy": 1.0}, 0.4)
    with pytest.raises(ValueError, match="has the classes happy; sad were given"):
        tracker.record(1, {"sad": 1.0}, 0.6)


def test_a_face_at_rest_is_steadied():
    rng = np.random.default_rng(0)
    detector = ScriptedDetector(face_at(100, 100))
    tracker = FaceTracker(detector)
    raw, steady = [], []
    for frame in range(60):
        detector.faces = (face_at(*(100 + rng.normal(scale=1.0, size=2))),)
        raw.append(detector.faces[0].box_xyxy[0])
        steady.append(tracker.update(FRAME, frame / 15)[0].face.box_xyxy[0])
    assert np.std(steady[15:]) < 0.7 * np.std(raw[15:])


@pytest.mark.parametrize("rate_hz", [8, 15, 30])
def test_a_moving_face_is_followed_with_little_lag(rate_hz):
    speed_px_s = 200.0  # two and a half widths of this face a second
    detector = ScriptedDetector(face_at(0, 100))
    tracker = FaceTracker(detector)
    for frame in range(2 * rate_hz):
        t_s = frame / rate_hz
        detector.faces = (face_at(speed_px_s * t_s, 100),)
        (track,) = tracker.update(FRAME, t_s)
    lag_s = t_s - track.face.box_xyxy[0] / speed_px_s
    assert track.id == 1
    assert 0 <= lag_s < 0.05
    assert track.face.landmarks[2] == pytest.approx((track.face.box_xyxy[0] + 40, 160), abs=0.5)


def test_a_real_face_is_followed_through_motion(astronaut):
    tracker = FaceTracker(MTCNNDetector(), search_every_s=10)
    portrait = ImageOps.scale(astronaut, 0.8)
    hand_drawn = tuple(0.8 * value for value in (172, 62, 270, 182))
    for frame in range(8):
        dx, dy = 12 * frame, 4 * frame
        canvas = Image.new("RGB", (640, 480), (96, 112, 128))
        canvas.paste(portrait, (dx, dy))
        (track,) = tracker.update(canvas, frame / 15)
        assert track.id == 1
        moved = tuple(value + (dx, dy)[i % 2] for i, value in enumerate(hand_drawn))
        assert iou_xyxy(track.face.box_xyxy, moved) > 0.5
