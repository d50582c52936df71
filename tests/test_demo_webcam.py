"""The live streams of the Webcam tab, without a browser."""

import pytest

from fer_hf.demo import webcam
from fer_hf.demo.desk import Desk
from fer_hf.demo.limits import Refused
from fer_hf.demo.uploads import Upload
from fer_hf.demo.webcam import Streams
from fer_hf.image_io import ImageError
from tests.demo_fake import FakeRecognizer, fake_shelf
from tests.test_demo_jobs import encode


@pytest.fixture
def shelf():
    return fake_shelf()


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_stream_follows_faces_and_its_answers_change_with_the_picture(shelf):
    clock = Clock()
    streams = Streams(clock)
    first = streams.look("a", shelf.first, Upload("f.jpg", encode((512, 384), (250, 20, 20), "JPEG")))
    clock.now = 1.0
    second = streams.look("a", shelf.first, Upload("f.jpg", encode((512, 384), (20, 20, 250), "JPEG")))
    assert first["size"] == (512, 384)
    assert first["faces"][0]["id"] == second["faces"][0]["id"] == 1
    assert first["faces"][0]["scores"] != second["faces"][0]["scores"]
    assert sum(second["faces"][0]["scores"].values()) == pytest.approx(1, abs=1e-3)


def test_streams_are_bounded_and_end(shelf, monkeypatch):
    monkeypatch.setattr(webcam, "MAX_STREAMS", 2)
    clock, frame = Clock(), Upload("f.jpg", encode((512, 384), kind="JPEG"))
    streams = Streams(clock)
    for name in ("a", "b"):
        streams.look(name, shelf.first, frame)
    with pytest.raises(Refused, match="try again"):
        streams.look("c", shelf.first, frame)
    streams.close("a")
    streams.look("c", shelf.first, frame)
    clock.now = webcam.IDLE_S + 1
    streams.look("d", shelf.first, frame)
    for step in range(100):
        clock.now += webcam.LONGEST_S / 99
        monkeypatch.setattr(webcam, "IDLE_S", 1e9)
        if step < 98:
            streams.look("d", shelf.first, frame)
    with pytest.raises(Refused, match="minutes"):
        streams.look("d", shelf.first, frame)


def test_frames_must_be_small_jpegs(shelf):
    streams = Streams()
    for data in (encode((512, 384), kind="PNG"), encode((3000, 2000), kind="JPEG")):
        with pytest.raises(ImageError):
            streams.look("a", shelf.first, Upload("f", data))


class FewerClasses(FakeRecognizer):
    labels = FakeRecognizer.labels[:3]

    def classify(self, crops, tta=False):
        scores = super().classify(crops)[:, :3]
        return scores / scores.sum(axis=1, keepdims=True)


def test_another_model_answers_in_a_stream_that_runs_and_for_no_longer_than_it_may(shelf, monkeypatch):
    monkeypatch.setattr(webcam, "LONGEST_S", 5)
    clock, frame = Clock(), Upload("f.jpg", encode((512, 384), (250, 20, 20), "JPEG"))
    streams, other = Streams(clock), Desk(FewerClasses(), "other")
    first = streams.look("a", shelf.first, frame)
    clock.now = 4.0
    second = streams.look("a", other, frame)
    assert len(first["faces"][0]["scores"]) == 7
    assert list(second["faces"][0]["scores"]) == list(FewerClasses.labels)
    assert sum(second["faces"][0]["scores"].values()) == pytest.approx(1, abs=1e-3)
    clock.now = 5.5
    with pytest.raises(Refused, match="minutes"):
        streams.look("a", other, frame)


def test_a_frame_that_comes_after_the_stop_takes_no_place(shelf, monkeypatch):
    monkeypatch.setattr(webcam, "MAX_STREAMS", 1)
    frame = Upload("f.jpg", encode((512, 384), kind="JPEG"))
    streams = Streams()
    streams.look("a", shelf.first, frame)
    streams.close("a")
    with pytest.raises(Refused, match="was stopped"):
        streams.look("a", shelf.first, frame)
    assert len(streams.look("b", shelf.first, frame)["faces"]) == 1
