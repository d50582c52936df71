"""Batch, Compare and Model in a real browser."""

import csv
import io
import json
import zipfile

from playwright.sync_api import expect

from tests.browser.test_photo import answer, encode, send


def as_file(name, data):
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


def test_batch_with_one_bad_file_in_a_zip(open_page):
    page = open_page()
    page.get_by_role("tab", name="Batch").click()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("folder/two.png", encode((640, 480), (20, 90, 200)))
        archive.writestr("folder/bad.jpg", b"nope")
        archive.writestr("__MACOSX/._two.png", b"junk")
    page.set_input_files("#fer-batch-file", [as_file("one.png", encode()), as_file("more.zip", packed.getvalue())])
    table = page.locator("#batch .fer-table")
    table.wait_for()
    rows = table.locator("tbody tr")
    expect(rows).to_have_count(4)
    expect(page.locator("#batch .fer-summary")).to_have_text("3 photos, 3 faces, 1 file could not be read.")
    expect(page.locator("#batch .fer-said")).to_have_text("3 photos, 3 faces, 1 file could not be read.")
    expect(rows.filter(has_text="bad.jpg")).to_contain_text("convert it")
    file_column = table.locator("thead button", has_text="File")
    file_column.click()
    assert [text.split("\t")[1] for text in rows.all_inner_texts()] == ["bad.jpg", "one.png", "two.png", "two.png"]
    file_column.click()
    assert rows.first.inner_text().split("\t")[1] == "two.png"
    assert table.locator("th[aria-sort=descending]").inner_text().startswith("File")
    got = {}
    for kind in ("CSV", "JSON", "Zip with pictures"):
        with page.expect_download() as waiting:
            page.locator("#batch").get_by_role("button", name=kind).click()
        got[waiting.value.suggested_filename] = waiting.value.path().read_bytes()
    assert len(json.loads(got["batch.json"])) == 3
    assert len(list(csv.DictReader(io.StringIO(got["batch.csv"].decode())))) == 4
    with zipfile.ZipFile(io.BytesIO(got["batch.zip"])) as archive:
        assert sorted(archive.namelist()) == ["001-one.jpg", "002-two.jpg", "results.csv", "results.json"]


def test_batch_can_be_stopped(open_page, site):
    page = open_page()
    page.get_by_role("tab", name="Batch").click()
    site.recognizer.delay_s = 0.4
    try:
        page.set_input_files("#fer-batch-file", [as_file(f"{n}.png", encode((512, 300 + n))) for n in range(30)])
        expect(page.locator("#batch .fer-progress")).to_contain_text("of 30")
        page.locator("#batch").get_by_role("button", name="Stop").click()
        expect(page.locator("#batch .fer-error")).to_have_text("Stopped.")
    finally:
        site.recognizer.delay_s = 0
    expect(page.locator("#batch .fer-meter")).to_be_hidden()


def test_compare_shows_every_model_and_their_mean(open_page):
    page = open_page()
    page.get_by_role("tab", name="Compare").click()
    page.set_input_files("#fer-compare-file", as_file("face.png", encode(colour=(220, 40, 10))))
    cards = page.locator("#compare .fer-cards article")
    expect(cards).to_have_count(3)
    assert cards.locator("h3").all_inner_texts() == ["Mean", "fake-one", "fake-two"]
    expect(cards.nth(1)).to_contain_text("ms a face")
    page.set_input_files("#fer-compare-file", as_file("none.png", encode((100, 100))))
    expect(page.locator("#compare .fer-error")).to_contain_text("No face found")


def test_model_is_chosen_for_this_page_only(open_page):
    page = open_page()
    page.get_by_role("tab", name="Model", exact=True).click()
    field = page.get_by_label("Embedded model or Hub id")
    for wrong, sentence in (
        ("missing/model", "no such model"),
        ("/etc", "give a Hub id"),
        ("../models/x", "give a Hub"),
    ):
        field.fill(wrong)
        page.get_by_role("button", name="Load and use it").click()
        expect(page.locator("#model .fer-error")).to_contain_text(sentence)
    field.fill("fake-two")
    page.get_by_role("button", name="Load and use it").click()
    expect(page.locator("#model h2")).to_have_text("fake-two")
    page.get_by_role("tab", name="Photo").click()
    send(page, encode())
    assert answer(page).get_attribute("data-model") == "fake-two"
    other = open_page()
    send(other, encode())
    assert answer(other).get_attribute("data-model") == "fake-one"
