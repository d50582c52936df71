"""The Video tab's work, without a browser."""

import base64
import csv
import io
import json
import time

import pytest
from PIL import Image

from fer_hf.demo.jobs import Progress
from fer_hf.demo.limits import ScratchFolder
from fer_hf.demo.uploads import Upload
from fer_hf.demo.video import rows_to_csv, show_clip
from fer_hf.video import VideoReader, VideoWriter
from tests.demo_fake import fake_shelf


@pytest.fixture
def clip(tmp_path):
    """Two seconds of changing colours."""
    path = tmp_path / "clip.mp4"
    with VideoWriter(path) as writer:
        for step in range(20):
            writer.write(Image.effect_noise((320, 240), 10 * step + 9).convert("RGB"), step / 10)
        writer.hold_until(2.0)
    return path.read_bytes()


def test_a_clip_that_writes_nothing_for_long_is_not_swept(clip, monkeypatch):
    with ScratchFolder(max_age_s=300) as scratch:
        monkeypatch.setattr("tempfile.tempdir", str(scratch.path))

        class Swept(Progress):
            def step(self, done, total):
                scratch.sweep(time.time() + 301)
                super().step(done, total)

        shown = show_clip(fake_shelf().first, Upload("clip.mp4", clip), Swept())
        assert list(scratch.path.iterdir()) == []
    with VideoReader(base64.b64decode(shown["mp4"])) as reader:
        assert reader.info.duration_s == pytest.approx(2.0, abs=0.002)
        assert len(list(reader.frames())) == 20


@pytest.mark.parametrize(("share", "notes"), [(1.0, 0), (0.7, 2)])
def test_what_is_missing_of_a_clip_is_said(clip, share, notes):
    shown = show_clip(fake_shelf().first, Upload("clip.mp4", clip[: int(len(clip) * share)]), Progress())
    record = json.loads(shown["json"])
    assert len(record["notes"]) == notes
    assert len(record["rows"]) > 5
    for note in record["notes"]:
        assert f'<p class="fer-note">{note}</p>' in shown["html"]


def test_the_csv_of_a_clip_holds_no_formulas():
    box = {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}
    row = {"t_s": 0.5, "face": 1, "label": "=1+1", "box": box, "scores": {"=1+1": 0.75, "happy": 0.25}}
    (read,) = csv.DictReader(io.StringIO(rows_to_csv([row])))
    assert (read["label"], read["'=1+1"], read["happy"], read["xmax"]) == ("'=1+1", "0.75", "0.25", "3")
