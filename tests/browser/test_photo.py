"""The Photo tab in a real browser: every format, choosing faces, attention, downloads, the camera, errors."""

import io
import json

import pillow_heif
from PIL import Image
from playwright.sync_api import expect

pillow_heif.register_heif_opener()


def encode(size=(512, 384), colour=(200, 90, 40), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def send(page, data, name="photo.png", mime="image/png"):
    page.set_input_files("#fer-photo-file", {"name": name, "mimeType": mime, "buffer": data})


def answer(page):
    page.locator(".fer-back").wait_for()
    return page.locator("#photo .fer-answer > .fer-result")


def test_a_cold_page_shows_two_examples_with_results_and_the_notice(open_page):
    page = open_page()
    results = page.locator("#photo .fer-result")
    expect(results).to_have_count(2)
    for number in range(2):
        assert results.nth(number).locator(".fer-bars li").count() == 7
        assert results.nth(number).locator(".fer-heat image[href]").count() == 1
    notice = page.locator(".fer-notice").first
    expect(notice).to_contain_text("nothing is kept")
    expect(notice).to_contain_text("at work, at school")
    assert notice.bounding_box()["y"] < page.locator(".fer-drop").first.bounding_box()["y"]


def test_each_format_is_read_and_shown_back(open_page, site):
    page = open_page()
    for number, kind in enumerate(("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "HEIF", "AVIF")):
        send(page, encode((512, 384 + number), kind=kind), f"photo.{kind.lower()}", "application/octet-stream")
        shown = page.locator(f'.fer-result[data-record*="photo.{kind.lower()}"] .fer-stage img')
        size = shown.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")
        assert size == [512, 384 + number], kind
    assert [path for path in site.scratch.rglob("*") if path.is_file()] == []


def test_a_face_is_chosen_on_the_photo_in_the_list_and_by_keyboard(open_page):
    page = open_page()
    send(page, encode((640, 480)))
    result = answer(page)
    boxes, rows = result.locator(".fer-box"), result.locator(".fer-face")
    assert boxes.nth(0).get_attribute("aria-pressed") == "true"
    boxes.nth(1).click()
    assert rows.nth(1).evaluate("row => row.classList.contains('fer-chosen')")
    assert result.locator(".fer-heat image[href]").get_attribute("data-face") == "1"
    rows.nth(0).locator("button").click()
    assert boxes.nth(0).get_attribute("aria-pressed") == "true"
    boxes.nth(1).focus()
    page.keyboard.press("Enter")
    assert boxes.nth(1).get_attribute("aria-pressed") == "true"
    assert boxes.nth(0).get_attribute("aria-pressed") == "false"


def test_a_map_that_comes_late_does_not_take_the_place_of_the_one_asked_for_since(open_page):
    page = open_page()
    send(page, encode())
    result = answer(page)
    page.evaluate("""() => {
      window.gates = {};
      const root = document.querySelector("#photo .fer");
      const map = (target) => ({ name: "grad_cam", title: "Grad-CAM", kind: "map", url: `data:,${target}` });
      const wait = (target) => new Promise((open) => (gates[target] = () => open({ maps: [map(target)] })));
      root.ferServer = { ...root.ferServer, attend: ({ data }) => wait(data.target) };
    }""")
    target = result.locator("[data-expression]")
    shown = target.input_value()
    first, second = [name for name in ("happy", "fear", "sad") if name != shown][:2]
    for name in (first, second):
        target.select_option(name)
        page.wait_for_function(f"'{name}' in gates")
    page.evaluate(f"gates.{second}()")
    heat = result.locator(".fer-crop-heat").first
    expect(heat).to_have_attribute("src", f"data:,{second}")
    page.evaluate(f"gates.{first}()")
    page.wait_for_timeout(100)
    expect(heat).to_have_attribute("src", f"data:,{second}")


def test_attention_follows_kind_expression_and_strength(open_page, site):
    page = open_page()
    send(page, encode((640, 480)))
    result = answer(page)
    slot = result.locator(".fer-heat image[href]")
    first = slot.get_attribute("href")
    target = result.locator("[data-expression]")
    other = "disgust" if target.input_value() != "disgust" else "happy"
    before = len(site.recognizer.attended)
    target.select_option(other)
    page.wait_for_function("([slot, old]) => slot.getAttribute('href') !== old", arg=[slot.element_handle(), first])
    assert site.recognizer.attended[before:] == [other]
    kind = result.locator("[data-kind]")
    kind.select_option("stage1.block1.se")
    expect(result.locator(".fer-face.fer-chosen .fer-gates")).to_be_visible()
    assert result.locator(".fer-heat image[href]").count() == 0
    kind.select_option("grad_cam")
    strength = result.locator("[data-opacity]")
    strength.fill("20")
    assert result.locator(".fer-heat").evaluate("heat => getComputedStyle(heat).opacity") == "0.2"
    kind.select_option("off")
    assert result.locator(".fer-heat image[href]").count() == 0


def test_downloads_hold_the_result(open_page):
    page = open_page()
    send(page, encode((640, 480)), "two faces.png")
    result = answer(page)
    got = {}
    for label in ("JSON", "CSV", "Picture"):
        with page.expect_download() as waiting:
            result.get_by_role("button", name=label).click()
        got[waiting.value.suggested_filename] = waiting.value.path().read_bytes()
    assert sorted(got) == ["two faces-faces.png", "two faces.csv", "two faces.json"]
    record = json.loads(got["two faces.json"])
    assert len(record["faces"]) == 2
    assert got["two faces.csv"].decode().count("\n") == 3
    picture = Image.open(io.BytesIO(got["two faces-faces.png"])).convert("RGB")
    assert picture.size == (640, 480)
    box = record["faces"][0]["box"]
    edge = picture.getpixel((round(box["xmin"]), round((box["ymin"] + box["ymax"]) / 2)))
    assert edge != picture.getpixel((2, 2))


def test_no_face_and_crowds_get_a_sentence_that_helps(open_page):
    page = open_page()
    for width, sentence in ((100, "upright"), (1290, "29 faces"), (1000, "100 faces")):
        send(page, encode((width, 400)))
        expect(page.locator("#photo .fer-answer > .fer-result .fer-summary")).to_contain_text(sentence)
        expect(page.locator("#photo .fer-said")).to_contain_text(sentence)


def test_errors_are_one_sentence_beside_the_button_and_the_page_goes_on(open_page):
    page = open_page()
    send(page, b"not a picture at all", "holiday.jpg", "image/jpeg")
    error = page.locator("#photo .fer-error")
    expect(error).not_to_be_empty()
    assert error.inner_text().count(".") <= 2
    assert "Traceback" not in page.content()
    page.evaluate("document.querySelector('#photo .fer').dataset.maxBytes = 1000")
    send(page, b"x" * 2000, "large.png")
    expect(error).to_contain_text("at most")
    page.evaluate("document.querySelector('#photo .fer').dataset.maxBytes = 1e6")
    send(page, encode())
    answer(page)
    expect(error).to_be_empty()


def test_a_picture_can_be_dropped_and_pasted(open_page):
    page = open_page()
    for event in ("drop", "paste"):
        page.evaluate(
            """([event, bytes]) => {
              const files = new DataTransfer();
              files.items.add(new File([new Uint8Array(bytes)], `${event}.png`, { type: "image/png" }));
              const target = event === "drop" ? document.querySelector(".fer-drop") : document;
              const init = { bubbles: true, cancelable: true };
              target.dispatchEvent(event === "drop" ? new DragEvent(event, { ...init, dataTransfer: files })
                : new ClipboardEvent(event, { ...init, clipboardData: files }));
            }""",
            [event, list(encode((640, 480) if event == "drop" else (512, 384)))],
        )
        page.locator(f'.fer-result[data-record*="{event}.png"]').wait_for()


def test_the_camera_is_off_after_close_however_often_it_was_opened(open_page):
    page = open_page()
    page.evaluate("""() => {
        window.opened = [];
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (wanted) => {
            const stream = await ask(wanted);
            opened.push(stream);
            return stream;
        };
    }""")
    use = page.get_by_role("button", name="Use the camera")
    use.click()
    use.click()
    page.wait_for_function("document.querySelector('#photo video').videoWidth > 0")
    use.click()
    page.get_by_role("button", name="Close the camera").click()
    live = "opened.flatMap((stream) => stream.getTracks()).filter((track) => track.readyState === 'live').length"
    assert page.evaluate(f"[opened.length, {live}]") == [1, 0]


def test_what_another_model_answered_says_so(open_page):
    page = open_page()
    send(page, encode())
    expect(answer(page).locator(".fer-note", has_text="Model:")).to_have_count(0)
    page.evaluate("document.documentElement.dataset.ferModel = 'fake-two'")
    send(page, encode((640, 480)))
    expect(page.locator("#photo .fer-note", has_text="Model: fake-two")).to_be_visible()


def test_the_camera_takes_one_picture(open_page):
    page = open_page()
    page.get_by_role("button", name="Use the camera").click()
    page.wait_for_function("document.querySelector('#photo video').videoWidth > 0")
    page.get_by_role("button", name="Take the picture").click()
    result = answer(page)
    assert "camera.jpg" in result.get_attribute("data-record")
    assert page.locator("#photo video").evaluate("video => video.srcObject") is None
