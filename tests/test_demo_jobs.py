"""Long work, archives, batches, comparisons, live streams and contributions of the demo, without a browser."""

import asyncio
import gc
import io
import threading
import time
import weakref
import zipfile
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from fer_hf.contributions import ContributionStore
from fer_hf.demo import limits
from fer_hf.demo.calls import answer_of
from fer_hf.demo.compare import Opinion, build_compare_tab, comparison_records, mean_of
from fer_hf.demo.contribute import FACE_PX, _label_of, audit_zip, give_face, take_back, take_zip
from fer_hf.demo.desk import Desk
from fer_hf.demo.jobs import Cancelled, Jobs, Progress
from fer_hf.demo.limits import Line, Refused
from fer_hf.demo.shelf import Shelf
from fer_hf.demo.uploads import Upload
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


def test_a_job_tells_how_far_it_is_and_gives_its_result_until_it_is_let_go():
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
    assert jobs.look(job) == {"answer": 42}  # an answer may get lost on its way
    jobs.cancel(job)
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
    jobs, gate = Jobs(running=1, waiting=1, silent_s=0.02), threading.Event()
    running, waiting = (jobs.start(lambda progress: {"late": gate.wait(10)}) for _ in range(2))
    time.sleep(0.05)
    watched = jobs.start(lambda progress: {"next": True})
    jobs.silent_s = 10
    for job in (running, waiting):
        with pytest.raises(Refused, match="silent for too long"):
            jobs.look(job)
    gate.set()
    assert finish(jobs, watched) == {"next": True}


def test_late_questions_of_a_page_keep_its_job():
    jobs, gate = Jobs(silent_s=0.2), threading.Event()
    job = jobs.start(lambda progress: {"answer": gate.wait(10)})
    time.sleep(0.3)
    assert jobs.look(job) == {"done": 0, "total": 0}
    jobs.silent_s = 10
    gate.set()
    assert finish(jobs, job) == {"answer": True}


def test_results_wait_for_a_silent_page_and_take_nobodys_place():
    jobs = Jobs(running=1, waiting=0, silent_s=0.02, kept_s=10, kept_results=2)
    made = []
    for number in range(3):
        made.append(jobs.start(lambda progress, number=number: {"number": number}))
        while not jobs._jobs[made[-1]].future.done():
            time.sleep(0.002)
    time.sleep(0.05)
    assert [jobs.look(job) for job in made[1:]] == [{"number": 1}, {"number": 2}]
    with pytest.raises(Refused, match="silent for too long"):
        jobs.look(made[0])  # more than two do not wait
    jobs.kept_s = 0.02
    time.sleep(0.05)
    jobs.start(lambda progress: {})
    with pytest.raises(Refused, match="silent for too long"):
        jobs.look(made[1])


def test_refusals_inside_a_job_are_its_answer():
    jobs = Jobs()

    def work(progress):
        raise ImageError("The picture is damaged.")

    assert finish(jobs, jobs.start(work)) == {"error": "The picture is damaged."}


def test_comparison_asks_every_model_and_means_them(shelf):
    desks = asyncio.run(shelf.ready_to_compare())
    record = comparison_records(shelf.first, desks, Upload("face.png", encode(colour=(200, 40, 90))))
    one, two = record["models"]
    assert (one["model"], two["model"]) == ("fake-one", "fake-two")
    assert one["scores"] != two["scores"]
    for name, mean in record["ensemble"]["scores"].items():
        assert mean == pytest.approx((one["scores"][name] + two["scores"][name]) / 2, abs=1e-6)
    with pytest.raises(Refused, match="No face found"):
        comparison_records(shelf.first, desks, Upload("none.png", encode((100, 90))))


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
            asyncio.create_task(answer_of(shelf.ready(f"user/{n}"), line, lambda desk: desk.model_name)) for n in "abc"
        ]
        await asyncio.sleep(0.05)
        quick = await answer_of(shelf.ready(), line, lambda desk: desk.model_name)
        assert not any(task.done() for task in loading)
        gate.set()
        return [quick, *await asyncio.gather(*loading)]

    assert asyncio.run(visit()) == ["first", "user/a", "user/b", "user/c"]


def test_comparing_waits_neither_in_line_nor_for_what_comes_from_the_hub(shelf):
    gate, line = threading.Event(), Line(running=1, waiting=3, seconds=10)

    def load(name):
        assert name == "fake-two" or gate.wait(10)
        return Desk(FakeRecognizer(), name)

    shelf = Shelf(shelf.first, shelf.folders, load)

    def compare(desks):
        return comparison_records(shelf.first, desks, Upload("face.png", encode()))

    async def visit():
        slow = asyncio.create_task(shelf.ready("user/slow"))
        await asyncio.sleep(0.05)
        compared = await asyncio.wait_for(answer_of(shelf.ready_to_compare(), line, compare), 5)
        assert not slow.done()
        gate.set()
        await slow
        return compared

    assert [one["model"] for one in asyncio.run(visit())["models"]] == ["fake-one", "fake-two"]


def test_models_that_load_for_a_comparison_take_no_worker_of_the_line(shelf):
    gate, line = threading.Event(), Line(running=1, waiting=3, seconds=10)

    def load(name):
        gate.wait(10)
        return Desk(FakeRecognizer(), name)

    shelf = Shelf(shelf.first, shelf.folders, load)
    with gr.Blocks():
        (compare,) = build_compare_tab(shelf, line).server_fns

    async def visit():
        comparing = asyncio.create_task(compare(SimpleNamespace(files=[("face.png", encode())])))
        await asyncio.sleep(0.05)
        quick = await asyncio.wait_for(answer_of(shelf.ready(), line, lambda desk: desk.model_name), 5)
        assert not comparing.done()
        gate.set()
        return quick, await comparing

    quick, compared = asyncio.run(visit())
    assert quick == "fake-one"
    assert "seen by 2 models" in compared["html"]


def test_two_visitors_who_want_the_same_model_wait_for_one_load(shelf):
    loads, gate = [], threading.Event()

    def load(name):
        loads.append(name)
        gate.wait(10)
        return Desk(FakeRecognizer(), name)

    shelf = Shelf(shelf.first, shelf.folders, load)

    async def visit():
        both = [
            asyncio.create_task(shelf.ready("fake-two")),
            asyncio.create_task(asyncio.to_thread(shelf.desk, "fake-two")),
        ]
        await asyncio.sleep(0.05)
        gate.set()
        return await asyncio.gather(*both)

    one, two = asyncio.run(visit())
    assert one is two
    assert loads == ["fake-two"]


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


def test_the_end_of_the_server_calls_everything_off_and_takes_back_what_nobody_has_the_id_of(monkeypatch):
    monkeypatch.setattr(limits, "_WORKING", weakref.WeakSet())  # those of other tests go on
    jobs, line, undone, begun = Jobs(), Line(running=1), [], []
    running, gate = threading.Event(), threading.Event()

    def store(progress):
        begun.append("job")
        running.set()
        gate.wait(10)
        return {"receipt": "nobody's"}

    jobs.start(store, undone.append)
    jobs.start(store, undone.append)
    assert running.wait(10)
    busy = threading.Thread(target=line.run_blocking, args=(gate.wait, 10))
    busy.start()
    while not line._open:
        time.sleep(0.01)
    waiting = line._submit(begun.append, ("line",))
    ending = threading.Thread(target=limits.end_work)
    ending.start()
    while not (jobs._workers._shutdown and waiting.cancelled()):
        time.sleep(0.01)
    gate.set()
    ending.join(10)
    busy.join(10)
    assert not ending.is_alive()
    assert not busy.is_alive()
    assert undone == [{"receipt": "nobody's"}]
    assert begun == ["job"]


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
        with pytest.raises(ModelError, match="Hub id"):
            asyncio.run(shelf.ready(name))


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


def test_folders_of_a_zip_may_have_the_models_names_or_ours(tmp_path):
    labels = ("Anger", "Happiness", "Sadness", "blurry")
    for folder in ("happiness", "happy", "Joy"):
        assert _label_of(folder, labels) == "Happiness"
    with pytest.raises(Refused, match="fear is not collected here; use Anger, Happiness, Sadness, blurry"):
        _label_of("fear", labels)
    with pytest.raises(Refused, match="'puzzled' is no expression"):
        _label_of("puzzled", labels)


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
