"""Long work, archives, batches, comparisons, live streams and contributions of the demo, without a browser."""

import base64
import io
import threading
import time
import zipfile

import pytest
from PIL import Image

from fer_hf.contributions import ContributionStore
from fer_hf.demo import archives, webcam
from fer_hf.demo.archives import count_files, unpack
from fer_hf.demo.batch import batch_records, show_batch
from fer_hf.demo.compare import average, comparison_records
from fer_hf.demo.contribute import FACE_PX, audit_zip, give_face, take_zip
from fer_hf.demo.jobs import Jobs, Progress
from fer_hf.demo.limits import Refused
from fer_hf.demo.uploads import Upload
from fer_hf.demo.webcam import Streams
from fer_hf.hub import ModelError
from fer_hf.image_io import ImageError
from fer_hf.labels import FER7
from tests.demo_fake import fake_shelf


def encode(size=(512, 512), colour=(200, 120, 40), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def pack(files, name="photos.zip"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return Upload(name, buffer.getvalue())


def finish(jobs, job):
    for _ in range(500):
        answer = jobs.look(job)
        if "done" not in answer:
            return answer
        time.sleep(0.005)
    raise AssertionError("the job does not end")


@pytest.fixture
def shelf():
    return fake_shelf()


def test_a_job_tells_how_far_it_is_and_gives_its_result_once():
    jobs, gate = Jobs(), threading.Event()

    def work(progress):
        progress.step(3, 10)
        gate.wait(10)
        return {"answer": 42}

    job = jobs.start(work)
    while jobs.look(job) != {"done": 3, "total": 10}:
        time.sleep(0.005)
    gate.set()
    assert finish(jobs, job) == {"answer": 42}
    with pytest.raises(Refused, match="fetched already"):
        jobs.look(job)


def test_a_cancelled_job_stops_at_its_next_step_and_frees_the_place():
    jobs, started, steps = Jobs(running=1, waiting=0), threading.Event(), []

    def work(progress):
        for step in range(1000):
            progress.step(step, 1000)
            steps.append(step)
            started.set()
            time.sleep(0.005)
        return {}

    job = jobs.start(work)
    started.wait(10)
    with pytest.raises(Refused, match="try again"):
        jobs.start(work)
    jobs.cancel(job)
    assert finish(jobs, jobs.start(lambda progress: {"next": True})) == {"next": True}
    assert len(steps) < 1000


def test_a_job_nobody_asks_for_is_called_off():
    jobs = Jobs(running=1, waiting=0, forget_after_s=0.02)
    job = jobs.start(lambda progress: {})
    time.sleep(0.05)
    with pytest.raises(Refused):
        jobs.look(job)


def test_refusals_inside_a_job_are_its_answer():
    jobs = Jobs()

    def work(progress):
        raise ImageError("The picture is damaged.")

    assert finish(jobs, jobs.start(work)) == {"error": "The picture is damaged."}


def test_zips_are_unpacked_with_their_folders_only_on_request():
    upload = pack({"happy/a.png": b"1", "__MACOSX/._a.png": b"junk", ".DS_Store": b"junk", "b.png": b"2"})
    assert count_files([Upload("c.png", b"3"), upload]) == 3
    names = [one.name for one in unpack([Upload("c.png", b"3"), upload])]
    assert names == ["c.png", "a.png", "b.png"]
    assert [one.name for one in unpack([upload], with_folders=True)] == ["happy/a.png", "b.png"]


def test_zips_that_are_broken_bombs_or_too_many_are_refused(monkeypatch):
    whole = pack({"a.png": b"x" * 5000}).data
    with pytest.raises(Refused, match="not a zip"):
        count_files([Upload("a.zip", whole[:-30])])
    damaged = bytearray(whole)
    damaged[40:50] = b"\xff" * 10
    with pytest.raises(Refused, match="damaged"):
        list(unpack([Upload("a.zip", bytes(damaged))]))
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 9_000)
    with pytest.raises(Refused, match="unpacks to more"):
        list(unpack([pack({"a.png": b"0" * 5000, "b.png": b"0" * 5000})]))
    monkeypatch.setattr(archives, "MAX_FILES", 1)
    with pytest.raises(Refused, match="at most 1"):
        count_files([pack({"a.png": b"1", "b.png": b"2"})])


def test_a_bad_file_costs_one_row_of_a_batch(shelf):
    uploads = [
        Upload("good.png", encode((640, 480))),
        Upload("bad.png", b"nope"),
        Upload("none.png", encode((100, 90))),
    ]
    records = batch_records(shelf.first, uploads)
    assert [len(record["faces"]) for record in records] == [2, 0, 0]
    assert ["error" in record for record in records] == [False, True, False]
    shown = show_batch(shelf.first, uploads, Progress())
    assert shown["html"].count("<tr>") == 1 + 4
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(shown["zip"]))) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 4


def test_comparison_asks_every_model_and_means_them(shelf):
    record = comparison_records(shelf, Upload("face.png", encode(colour=(200, 40, 90))))
    one, two = record["models"]
    assert (one["model"], two["model"]) == ("fake-one", "fake-two")
    assert one["scores"] != two["scores"]
    for name, mean in record["ensemble"]["scores"].items():
        assert mean == pytest.approx((one["scores"][name] + two["scores"][name]) / 2, abs=1e-6)
    with pytest.raises(Refused, match="No face found"):
        comparison_records(shelf, Upload("none.png", encode((100, 90))))


def test_mean_of_models_with_other_classes_is_over_those_they_share():
    mean = average([{"happy": 0.5, "sad": 0.25, "contempt": 0.25}, {"sad": 0.5, "happy": 0.5}])
    assert mean == pytest.approx({"happy": 4 / 7, "sad": 3 / 7})


def test_shelf_takes_embedded_names_and_hub_ids_and_nothing_on_the_disk(shelf, tmp_path, monkeypatch):
    assert shelf.desk() is shelf.first
    assert shelf.desk("fake-two") is shelf.desk("fake-two")
    assert shelf.desk("user/model@main").model_name == "user/model@main"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    for name in ("/etc", "..", "../x", "models/mine", "a/b/c", "user/model; rm"):
        with pytest.raises(ModelError, match="Hub id"):
            shelf.desk(name)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_stream_follows_faces_and_its_answers_change_with_the_picture(shelf):
    clock = Clock()
    streams = Streams(shelf, clock)
    first = streams.look("a", "", Upload("f.jpg", encode((512, 384), (250, 20, 20), "JPEG")))
    clock.now = 1.0
    second = streams.look("a", "", Upload("f.jpg", encode((512, 384), (20, 20, 250), "JPEG")))
    assert first["size"] == (512, 384)
    assert first["faces"][0]["id"] == second["faces"][0]["id"] == 1
    assert first["faces"][0]["scores"] != second["faces"][0]["scores"]
    assert sum(second["faces"][0]["scores"].values()) == pytest.approx(1, abs=1e-3)


def test_streams_are_bounded_and_end(shelf, monkeypatch):
    monkeypatch.setattr(webcam, "MAX_STREAMS", 2)
    clock, frame = Clock(), Upload("f.jpg", encode((512, 384), kind="JPEG"))
    streams = Streams(shelf, clock)
    for name in ("a", "b"):
        streams.look(name, "", frame)
    with pytest.raises(Refused, match="try again"):
        streams.look("c", "", frame)
    streams.close("a")
    streams.look("c", "", frame)
    clock.now = webcam.IDLE_S + 1
    streams.look("a", "", frame)
    for step in range(100):
        clock.now += webcam.LONGEST_S / 99
        monkeypatch.setattr(webcam, "IDLE_S", 1e9)
        if step < 98:
            streams.look("a", "", frame)
    with pytest.raises(Refused, match="minutes"):
        streams.look("a", "", frame)


def test_frames_must_be_small_jpegs(shelf):
    streams = Streams(shelf)
    for data in (encode((512, 384), kind="PNG"), encode((3000, 2000), kind="JPEG")):
        with pytest.raises(ImageError):
            streams.look("a", "", Upload("f", data))


@pytest.fixture
def store(tmp_path):
    return ContributionStore(tmp_path / "store", FER7)


def test_a_face_is_given_with_its_right_label_and_only_with_consent(shelf, store):
    upload = Upload("me.png", encode((640, 480)))
    with pytest.raises(Refused, match="consent"):
        give_face(shelf.first, store, upload, 1, "sad", consent=False)
    with pytest.raises(Refused, match="choose the photo again"):
        give_face(shelf.first, store, upload, 2, "sad", consent=True)
    with pytest.raises(Refused, match="not a label"):
        give_face(shelf.first, store, upload, 1, "joyful", consent=True)
    assert list(store.entries()) == []
    receipt = give_face(shelf.first, store, upload, 1, "sad", consent=True)["receipt"]
    (entry,) = store.entries()
    assert entry["label"] == "sad"
    assert max(store.open_picture(entry["picture"]).size) <= FACE_PX
    assert store.withdraw(receipt) == 1


def test_a_zip_is_audited_before_it_is_taken(shelf, store):
    same = encode((512, 400), (10, 20, 30))
    zipped = pack(
        {
            "set/happy/1.png": encode((512, 384)),
            "set/Sadness/2.png": same,
            "set/sad/3.png": same,
            "set/puzzled/4.png": encode(),
            "set/happy/5.png": encode((640, 480)),
            "set/happy/6.png": b"nope",
        }
    )
    audit = audit_zip(shelf.first, store, [zipped], Progress())
    assert [offer.label for offer in audit.offers] == ["happy", "sad"]
    reasons = {name.rpartition("/")[2]: reason for name, reason in audit.rejected}
    assert sorted(reasons) == ["3.png", "4.png", "5.png", "6.png"]
    assert "same picture" in reasons["3.png"]
    assert "'puzzled' is no expression" in reasons["4.png"]
    assert "2 faces" in reasons["5.png"]
    shown = take_zip(shelf.first, store, [zipped], Progress(), keep=False, consent=False)
    assert shown["takeable"] == 2
    assert list(store.entries()) == []
    with pytest.raises(Refused, match="consent"):
        take_zip(shelf.first, store, [zipped], Progress(), keep=True, consent=False)
    receipt = take_zip(shelf.first, store, [zipped], Progress(), keep=True, consent=True)["receipt"]
    assert [entry["label"] for entry in store.entries()] == ["happy", "sad"]
    with pytest.raises(Refused, match="No photo of this zip"):
        take_zip(shelf.first, store, [zipped], Progress(), keep=True, consent=True)
    assert store.withdraw(receipt) == 2
