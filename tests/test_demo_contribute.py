"""The Contribute tab with the Hub behind it: it starts without the Hub, and says what happens to a picture."""

import threading
import time

import pytest
from PIL import Image

from fer_hf.contributions import ContributionStore, HubStore, hub_store
from fer_hf.demo import page
from fer_hf.demo.contribute import give_face, take_back, what_happens, withdraw_given
from fer_hf.demo.jobs import Jobs
from fer_hf.demo.limits import Refused
from fer_hf.demo.uploads import Upload
from tests.contribution_runs import on_hub
from tests.demo_fake import fake_shelf
from tests.pictures import encode

LABELS = fake_shelf().first.recognizer.labels
PHOTO = Upload("me.png", encode(Image.new("RGB", (640, 480), (90, 160, 70)), "PNG"))


@pytest.fixture
def configure(monkeypatch, tmp_path):
    """The store that settings make; {folder} stands for one of the test's own."""

    def make(**settings):
        for name in ("FER_CONTRIBUTIONS", "FER_CONTRIBUTIONS_REPO", "FER_CONTRIBUTIONS_PR", "SPACE_ID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in settings.items():
            monkeypatch.setenv(name, value.format(folder=tmp_path / "store"))
        return page.configured_store(LABELS)

    return make


def test_settings_decide_where_pictures_go(configure, monkeypatch):
    started = []
    monkeypatch.setattr(page.Pusher, "start", lambda self: started.append(self))
    assert configure() is None
    alone = configure(FER_CONTRIBUTIONS="{folder}")
    assert isinstance(alone, ContributionStore)
    assert alone.repo_id is None
    assert started == []
    both = configure(FER_CONTRIBUTIONS="{folder}", FER_CONTRIBUTIONS_REPO="user/faces", FER_CONTRIBUTIONS_PR="1")
    assert isinstance(both, ContributionStore)
    assert [(one.store, one.repo.id, one.repo.as_pull_requests) for one in started] == [(both, "user/faces", True)]
    direct = configure(FER_CONTRIBUTIONS_REPO="user/faces")
    assert isinstance(direct, HubStore)
    assert len(started) == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"FER_CONTRIBUTIONS_REPO": "faces"}, "such as user/faces"),
        ({"FER_CONTRIBUTIONS_REPO": "user/faces", "FER_CONTRIBUTIONS_PR": "yes"}, "set it to 1 or 0"),
        ({"FER_CONTRIBUTIONS": "/fer-hf-nowhere", "SPACE_ID": "user/space"}, "a restart of the Space deletes"),
    ],
)
def test_settings_that_cannot_work_are_refused(configure, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        configure(**settings)


def test_the_demo_starts_and_stores_while_the_hub_is_down(configure, hub, monkeypatch):
    hub.stop()
    started, start = [], page.Pusher.start
    monkeypatch.setattr(page.Pusher, "start", lambda self: started.append(start(self)))
    store = configure(FER_CONTRIBUTIONS="{folder}", FER_CONTRIBUTIONS_REPO="user/faces")
    page.build_page(fake_shelf(), store=store)
    given = give_face(fake_shelf().first, store, PHOTO, 1, "sad", consent=True)
    assert len(list(store.entries())) == 1
    assert withdraw_given(store, given["receipt"])["said"].endswith("within minutes of the Hub being reachable.")
    started[0].stop()


def test_without_a_disk_nothing_is_acknowledged_that_the_hub_does_not_have(configure, hub, monkeypatch):
    monkeypatch.setattr(hub_store, "PATIENCE_S", 0.0)
    store = configure(FER_CONTRIBUTIONS_REPO="user/faces")
    hub.fail("/api/datasets/", status=503)
    with pytest.raises(Refused, match=r"^Nothing was stored\. user/faces: the Hub answers with an error"):
        give_face(fake_shelf().first, store, PHOTO, 1, "sad", consent=True)
    given = give_face(fake_shelf().first, store, PHOTO, 1, "sad", consent=True)
    assert [row["label"] for row in on_hub(hub)] == ["sad"]
    hub.fail("/api/datasets/", status=503)
    with pytest.raises(Refused, match="not withdrawn yet"):
        withdraw_given(store, given["receipt"])
    assert withdraw_given(store, given["receipt"]) == {
        "said": "Withdrawn: 1. What was not given under another id too is deleted."
    }
    with pytest.raises(Refused, match="Nothing is stored under this id"):
        withdraw_given(store, given["receipt"])


def test_a_face_whose_giver_left_before_its_id_was_there_is_taken_back(configure, hub):
    store = configure(FER_CONTRIBUTIONS_REPO="user/faces")
    sent, left, undone = threading.Event(), threading.Event(), threading.Event()

    def hold():
        sent.set()
        left.wait(20)

    hub.fail("POST .*/commit/", call=hold)

    def undo(given):
        assert len(on_hub(hub)) == 1
        take_back(store, given["receipt"])
        undone.set()

    jobs, desk = Jobs(silent_s=0.0), fake_shelf().first
    job = jobs.start(lambda progress: give_face(desk, store, PHOTO, 1, "sad", consent=True), undo)
    assert sent.wait(20)
    time.sleep(0.01)
    with pytest.raises(Refused, match="silent for too long"):
        jobs.look(job)
    left.set()
    assert undone.wait(20)
    assert on_hub(hub) == []


def test_the_tab_says_where_a_picture_goes_and_when(configure, monkeypatch):
    monkeypatch.setattr(page.Pusher, "start", lambda self: None)
    here = what_happens(configure(FER_CONTRIBUTIONS="{folder}"))
    both = what_happens(configure(FER_CONTRIBUTIONS="{folder}", FER_CONTRIBUTIONS_REPO="user/faces"))
    direct = what_happens(configure(FER_CONTRIBUTIONS_REPO="user/faces"))
    assert "Hub" not in here
    assert "stays on this server" in here
    for text in (both, direct):
        assert "user/faces on the Hugging Face Hub" in text
        assert "before anyone has reviewed it" in text
    assert "within a minute" in both
    assert "once it is there" in direct
