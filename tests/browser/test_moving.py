"""Webcam, Video and Contribute in a real browser."""

import io
import json

import pytest
from PIL import Image
from playwright.sync_api import expect

from fer_hf.video import VideoWriter
from tests.browser.test_photo import encode


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip of two seconds whose colour changes."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with VideoWriter(path) as writer:
        for step in range(24):
            writer.write(Image.new("RGB", (320, 240), (10 * step, 120, 250 - 10 * step)), step / 12)
    return path.read_bytes()


def test_the_camera_gives_changing_answers_and_stops(open_page):
    page = open_page()
    page.get_by_role("tab", name="Webcam").click()
    expect(page.locator("#webcam .fer-notice")).to_contain_text("nothing is kept")
    page.get_by_label("Keep the best picture").check()
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator("#webcam .fer-live-box")).to_have_count(2)  # the fake finds two faces in 640 pixels
    page.wait_for_function("Number(document.querySelector('#webcam .fer').dataset.looks) > 2")
    seen = set()
    for _ in range(60):
        seen.add(page.locator("#webcam .fer-live-box").first.inner_text())
        if len(seen) > 1:
            break
        page.wait_for_timeout(100)
    assert len(seen) > 1
    expect(page.locator(".fer-speed")).to_contain_text("frames/s shown")
    painted = page.locator(".fer-timeline").evaluate(
        "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(value => value)"
    )
    assert painted
    expect(page.locator(".fer-best img")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    page.wait_for_timeout(1000)
    looks = page.locator("#webcam .fer").get_attribute("data-looks")
    page.wait_for_timeout(400)
    assert page.locator("#webcam .fer").get_attribute("data-looks") == looks
    page.get_by_role("button", name="Stop the camera").click()
    assert page.locator(".fer-live video").evaluate("video => video.srcObject") is None
    expect(page.get_by_role("button", name="Start the camera")).to_be_visible()


def test_a_clip_comes_back_drawn_with_timelines_and_numbers(open_page, site, clip):
    page = open_page()
    page.get_by_role("tab", name="Video").click()
    expect(page.locator("#video .fer-hint")).to_contain_text("60 seconds")
    page.set_input_files("#fer-video-file", {"name": "clip.mp4", "mimeType": "video/mp4", "buffer": clip})
    player = page.locator("#video video")
    player.wait_for()
    page.wait_for_function("document.querySelector('#video video').readyState >= 1")
    assert player.evaluate("video => [video.videoWidth, video.videoHeight]") == [320, 240]
    expect(page.locator("#video .fer-track-figure")).to_have_count(1)
    assert page.locator("#video polyline").count() == 7
    with page.expect_download() as waiting:
        page.locator("#video").get_by_role("button", name="JSON").click()
    rows = json.loads(waiting.value.path().read_text())["rows"]
    assert len(rows) == 24
    assert len({row["label"] for row in rows}) > 1
    assert [path for path in site.scratch.rglob("*") if path.is_file()] == []


def test_a_clip_can_be_stopped_and_a_bad_one_gets_a_sentence(open_page, site, clip):
    page = open_page()
    page.get_by_role("tab", name="Video").click()
    page.set_input_files("#fer-video-file", {"name": "clip.mp4", "mimeType": "video/mp4", "buffer": b"nope" * 99})
    expect(page.locator("#video .fer-error")).to_contain_text("not a video")
    site.recognizer.delay_s = 0.3
    try:
        page.set_input_files("#fer-video-file", {"name": "clip.mp4", "mimeType": "video/mp4", "buffer": clip})
        expect(page.locator("#video .fer-progress")).to_contain_text("%")
        page.locator("#video").get_by_role("button", name="Stop").click()
        expect(page.locator("#video .fer-error")).to_have_text("Stopped.")
    finally:
        site.recognizer.delay_s = 0.0


def test_a_corrected_label_is_given_with_consent_and_withdrawn(open_page, site):
    page = open_page()
    page.get_by_role("tab", name="Contribute").click()
    root = page.locator("#contribute")
    photo = {"name": "me.png", "mimeType": "image/png", "buffer": encode((512, 333), (90, 160, 70))}
    page.set_input_files("#fer-contribute-file", photo)
    root.locator("select").select_option("surprise")
    root.get_by_role("button", name="Give this picture").click()
    expect(root.locator(".fer-error")).to_contain_text("consent")
    assert list(site.store.entries()) == []
    root.get_by_role("checkbox").check()
    root.get_by_role("button", name="Give this picture").click()
    thanks = root.get_by_text("Your id to withdraw it")
    thanks.wait_for()
    (entry,) = site.store.entries()
    assert entry["label"] == "surprise"
    receipt = thanks.inner_text().rpartition(": ")[2]
    root.get_by_label("Withdraw what you gave").fill(receipt)
    root.get_by_role("button", name="Withdraw").click()
    expect(root.locator(".fer-progress")).to_have_text(
        "Withdrawn: 1. What was not given under another id too is deleted."
    )
    assert list(site.store.entries()) == []


def test_what_is_given_is_what_is_shown_however_late_an_answer_comes(open_page, site):
    page = open_page()
    page.get_by_role("tab", name="Contribute").click()
    root = page.locator("#contribute")
    photos = [
        {"name": f"{number}.png", "mimeType": "image/png", "buffer": encode((size, 384), (90, 60, 70))}
        for number, size in enumerate((640, 512))  # two faces, and one
    ]
    site.recognizer.delay_s = 1.0
    try:
        page.set_input_files("#fer-contribute-file", photos[0])
        page.wait_for_timeout(200)
    finally:
        site.recognizer.delay_s = 0.0
    page.set_input_files("#fer-contribute-file", photos[1])
    expect(root.locator(".fer-face")).to_have_count(1)
    page.wait_for_timeout(1500)
    expect(root.locator(".fer-face")).to_have_count(1)


def test_the_id_of_what_was_given_is_shown_also_where_another_photo_was_chosen_since(open_page, site):
    page = open_page()
    page.get_by_role("tab", name="Contribute").click()
    root = page.locator("#contribute")
    photos = [
        {"name": f"{number}.png", "mimeType": "image/png", "buffer": encode((512, 320 + number), (90, 60, 70))}
        for number in range(2)
    ]
    page.set_input_files("#fer-contribute-file", photos[0])
    root.get_by_role("checkbox").check()
    expect(root.locator(".fer-face")).to_have_count(1)
    site.recognizer.delay_s = 1.0
    try:
        root.get_by_role("button", name="Give this picture").click()
        page.wait_for_timeout(200)
    finally:
        site.recognizer.delay_s = 0.0
    page.set_input_files("#fer-contribute-file", photos[1])
    given = root.locator(".fer-receipts").get_by_text("0.png is stored. Your id to withdraw it")
    given.wait_for()
    expect(root.get_by_text("Thank you")).to_have_count(0)
    assert site.store.withdraw(given.inner_text().rpartition(": ")[2]) == 1


def test_a_zip_is_audited_on_the_page_before_it_is_given(open_page, site):
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("happy/1.png", encode((512, 384), (1, 2, 3)))
        archive.writestr("odd/2.png", encode((512, 384), (4, 5, 6)))
    page = open_page()
    page.get_by_role("tab", name="Contribute").click()
    root = page.locator("#contribute")
    file = {"name": "set.zip", "mimeType": "application/zip", "buffer": packed.getvalue()}
    page.set_input_files("#fer-contribute-file", file)
    expect(root.locator(".fer-summary")).to_contain_text("1 photo can be taken, 1 cannot")
    expect(root.locator("li").first).to_contain_text("'odd' is no expression")
    root.get_by_role("checkbox").check()
    root.get_by_role("button", name="Give these photos").click()
    thanks = root.get_by_text("Your id to withdraw it")
    thanks.wait_for()
    assert [entry["label"] for entry in site.store.entries()] == ["happy"]
    assert site.store.withdraw(thanks.inner_text().rpartition(": ")[2]) == 1
