"""Long work, archives, batches, comparisons, live streams and contributions of the demo, without a browser."""

import asyncio
import base64
import gc
import io
import threading
import time
import weakref
import zipfile

import pytest
from PIL import Image

from fer_hf.contributions import ContributionStore
from fer_hf.demo import archives, webcam
from fer_hf.demo.archives import count_files, unpack
from fer_hf.demo.batch import batch_records, show_batch
from fer_hf.demo.calls import answer_of
from fer_hf.demo.compare import Opinion, comparison_records, mean_of
from fer_hf.demo.contribute import FACE_PX, audit_zip, give_face, take_back, take_zip
from fer_hf.demo.desk import Desk
from fer_hf.demo.jobs import Cancelled, Jobs, Progress
from fer_hf.demo.limits import Line, Refused
from fer_hf.demo.shelf import Shelf
from fer_hf.demo.uploads import Upload
from fer_hf.demo.webcam import Streams
from fer_hf.hub import ModelError
from fer_hf.image_io import ImageError
from fer_hf.labels import FER7
from tests.demo_fake import FakeRecognizer, fake_shelf


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


def opinion(name, **scores):
    return Opinion(name, scores, None, None, None, 1.0, None, None)


def test_a_model_that_lacks_a_class_does_not_count_against_it():
    two = [opinion("a", happy=0.2, sad=0.1, neutral=0.7), opinion("b", neutral=0.5, happy=0.1, sad=0.4)]
    mean = mean_of([*two, opinion("without", happy=0.1, sad=0.9)], ("happy", "sad", "neutral"))
    assert mean.scores == pytest.approx({"happy": 0.15, "sad": 0.25, "neutral": 0.6})
    assert (mean.of, mean.without) == (("a", "b"), ("without",))
    assert mean_of(two[:1], ("happy", "sad", "neutral")) is None


def test_a_model_that_loads_keeps_nobody_waiting_who_needs_none():
    gate, line = threading.Event(), Line(running=1, waiting=3, seconds=10)

    def load(name):
        gate.wait(10)
        return Desk(FakeRecognizer(), name)

    shelf = Shelf(Desk(FakeRecognizer(), "first"), {}, load)

    async def visit():
        loading = [
            asyncio.create_task(answer_of(shelf, line, f"user/{n}", lambda desk: desk.model_name)) for n in "abc"
        ]
        await asyncio.sleep(0.05)
        quick = await answer_of(shelf, line, "", lambda desk: desk.model_name)
        assert not any(task.done() for task in loading)
        gate.set()
        return [quick, *await asyncio.gather(*loading)]

    assert asyncio.run(visit()) == ["first", "user/a", "user/b", "user/c"]


@pytest.mark.parametrize("stopped", ["while it is stored", "before it is fetched"])
def test_what_nobody_fetches_the_id_of_is_taken_back(shelf, store, stopped, monkeypatch):
    jobs, storing, stop = Jobs(), threading.Event(), threading.Event()
    add, taken_back = store.add, threading.Event()

    def slow_add(offers, *, consent):
        storing.set()
        stop.wait(10)
        return add(offers, consent=consent)

    def undo(given):
        assert len(list(store.entries())) == 1
        take_back(store, given["receipt"])
        taken_back.set()

    monkeypatch.setattr(store, "add", slow_add)
    zipped = pack({"happy/1.png": encode((512, 384))})
    job = jobs.start(lambda p: take_zip(shelf.first, store, [zipped], p, keep=True, consent=True), undo)
    assert storing.wait(10)
    if stopped == "before it is fetched":
        stop.set()
        while not jobs._jobs[job].future.done():
            time.sleep(0.01)
    jobs.cancel(job)
    stop.set()
    assert taken_back.wait(10)
    assert list(store.entries()) == []


def test_a_zip_that_is_stopped_before_it_is_stored_is_not_stored(shelf, store):
    progress = Progress()
    zipped = pack({"happy/1.png": encode((512, 384))})
    looked = store.holds

    def stop_while_looking(picture):
        progress.called_off = True
        return looked(picture)

    store.holds = stop_while_looking
    with pytest.raises(Cancelled):
        take_zip(shelf.first, store, [zipped], progress, keep=True, consent=True)
    assert list(store.entries()) == []


def test_uploads_of_stopped_jobs_are_let_go():
    class Held:
        pass

    jobs, gate = Jobs(running=1, waiting=8), threading.Event()
    jobs.start(lambda progress: {"done": gate.wait(10)})
    upload = Held()
    seen = weakref.ref(upload)
    jobs.cancel(jobs.start(lambda progress, upload=upload: {"it": upload}))
    del upload
    gc.collect()
    assert seen() is None
    gate.set()


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
