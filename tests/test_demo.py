"""The demo without a browser: wording, records, markup, the way from bytes to a result."""

import base64
import csv
import io
import json
import re
from html import unescape

import numpy as np
import pytest
from PIL import Image

from fer_hf.demo.batch import _rows
from fer_hf.demo.desk import ATTENDED_FACES, Desk
from fer_hf.demo.markup import ResultView, attention_title, result_html
from fer_hf.demo.photo import example_paths
from fer_hf.demo.records import photo_record, to_csv
from fer_hf.demo.uploads import Upload, safe_name
from fer_hf.demo.wording import (
    describe_face,
    explain_doubt,
    measure_detail,
    measure_turn,
    name_expression,
    summarise,
    warn_about_face,
)
from fer_hf.faces import AlignedFace, Face, Prediction
from fer_hf.image_io import ImageError
from tests.demo_fake import FakeRecognizer, face_at


def encode(size=(512, 512), colour=(200, 120, 40), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def desk():
    return Desk(FakeRecognizer(), "fake/model")


@pytest.mark.parametrize(
    ("scores", "name"),
    [
        ({"happy": 0.9, "sad": 0.1}, "happy"),
        ({"sad": 0.4, "fear": 0.6}, "fear or sad"),
        ({"fear": 0.3, "surprise": 0.35, "angry": 0.25, "sad": 0.1}, "surprise, fear or angry"),
        ({"happy": 0.63, "sad": 0.37}, "happy"),
    ],
)
def test_a_label_stands_alone_only_where_it_leads(scores, name):
    assert name_expression(scores) == name


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ({"happy": 0.9, "sad": 0.1}, "happy, 90%"),
        ({"sad": 0.4, "fear": 0.6}, "fear or sad (60%, 40%)"),
        ({"fear": 0.3, "surprise": 0.35, "angry": 0.35}, "perhaps surprise, 35%"),
        ({"happy": 0.62, "sad": 0.37, "fear": 0.01}, "happy, 62%"),  # a lead of exactly 0.25 has no say
    ],
)
def test_doubt_is_worded_by_the_models_own_threshold(scores, text):
    assert describe_face(make_prediction(scores, answer_threshold=0.38)) == text


def test_doubt_is_explained_with_the_coverage_the_model_states(desk):
    desk.recognizer.answer_threshold, desk.recognizer.answer_coverage = 0.38, 0.9
    photo = Upload("grey.png", encode(colour=(120, 118, 119)))  # three colours alike: no expression stands out
    assert "perhaps" in desk.show(photo)
    assert "Every expression from 38% on is named" in desk.show(photo)
    assert "hold the raters' label 90% of the time" in unescape(desk.show(photo))
    assert len(desk.record(photo)["faces"][0]["between"]) == 1
    desk.recognizer.answer_threshold = 0.1
    assert len(desk.record(photo)["faces"][0]["between"]) == 3
    clear = explain_doubt([make_prediction({"happy": 0.9, "sad": 0.1}, answer_threshold=0.38)], 0.9)
    assert clear == ""


def make_prediction(scores, face=None, crop=None, answer_threshold=None):
    aligned = AlignedFace(crop or Image.new("RGB", (48, 48)), np.eye(2, 3))
    return Prediction(scores, face, aligned, answer_threshold=answer_threshold)


def test_unsure_faces_are_described_with_both_probabilities():
    text = describe_face(make_prediction({"fear": 0.45, "surprise": 0.4, "happy": 0.15}))
    assert text == "fear or surprise (45%, 40%)"


def test_warnings_name_what_is_wrong(astronaut):
    sharp = astronaut.crop((170, 60, 280, 170)).resize((48, 48))
    flat = Image.new("RGB", (48, 48), (90, 90, 90))
    face = face_at(100, 100, 80)
    assert warn_about_face(face, AlignedFace(sharp, np.eye(2, 3))) == []
    assert "Small face, 20 pixels" in warn_about_face(face_at(100, 100, 20), AlignedFace(sharp, np.eye(2, 3)))[0]
    assert "Blurred" in warn_about_face(face, AlignedFace(flat, np.eye(2, 3)))[0]
    turned = Face(face.box_xyxy, 0.9, ((80, 90), (110, 90), (112, 105), (84, 120), (108, 120)))
    assert "Turned" in warn_about_face(turned, AlignedFace(sharp, np.eye(2, 3)))[0]


def test_turn_does_not_depend_on_tilt_and_coinciding_eyes_count_as_turned():
    marks = np.array([(0.0, 0.0), (10.0, 0.0), (8.0, 6.0)])
    angle = np.deg2rad(40)
    tilted = marks @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    assert measure_turn(marks) == pytest.approx(0.3)
    assert measure_turn(tilted) == pytest.approx(0.3)
    assert measure_turn([(1, 1), (1, 1), (1, 2)]) == float("inf")


def test_detail_falls_with_blur(astronaut):
    face = astronaut.crop((170, 60, 280, 170))
    blurred = face.resize((8, 8), Image.Resampling.BOX).resize((110, 110), Image.Resampling.BICUBIC)
    assert measure_detail(face.resize((48, 48))) > 2 * measure_detail(blurred.resize((48, 48)))


def test_every_count_of_faces_has_a_sentence_that_helps():
    happy, sad = make_prediction({"happy": 0.9, "sad": 0.1}), make_prediction({"happy": 0.1, "sad": 0.9})
    assert "upright" in summarise([], (640, 480))
    assert "15 × 15 pixels" in summarise([], (15, 15))
    assert summarise([happy], (640, 480)).startswith("One face, perceived as happy")
    assert summarise([happy] * 20 + [sad] * 9, (640, 480)) == "29 faces: 20 happy, 9 sad."


def test_desk_gives_the_same_record_as_the_page(desk):
    upload = Upload("two.png", encode((640, 480)))
    record = desk.record(upload)
    assert record["file"] == "two.png"
    assert (record["width"], record["height"], record["model"]) == (640, 480, "fake/model")
    assert [sorted(face["box"]) for face in record["faces"]] == [["xmax", "xmin", "ymax", "ymin"]] * 2
    for face in record["faces"]:
        assert sum(face["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert face["scores"][face["label"]] == face["score"] == max(face["scores"].values())
    shown = re.search(r'data-record="([^"]*)"', desk.show(upload)).group(1)
    assert json.loads(unescape(shown)) == record


def test_a_folder_on_the_server_is_named_without_its_place(tmp_path):
    (tmp_path / "model-a").mkdir()
    assert Desk(FakeRecognizer(), str(tmp_path / "model-a")).model_name == "model-a"
    assert Desk(FakeRecognizer(), "user/model-b").model_name == "user/model-b"


def test_page_shows_boxes_where_the_faces_are_and_the_map_in_their_geometry(desk):
    html = desk.show(Upload("photo.png", encode((512, 512))))
    box = re.search(r'class="fer-box[^>]*style="left:([\d.]+)%;top:([\d.]+)%;width:([\d.]+)%;height:([\d.]+)%"', html)
    assert [float(value) for value in box.groups()] == pytest.approx([20, 20, 60, 60])
    a, b, c, d, e, f = map(float, re.search(r"matrix\(([^)]*)\)", html).group(1).split())
    assert (a, d, b, c) == pytest.approx((512 * 0.6 / 48, 512 * 0.6 / 48, 0, 0), rel=1e-4)
    assert (e, f) == pytest.approx((512 * 0.2, 512 * 0.2), rel=1e-4)


def test_photo_is_sent_back_small_and_without_metadata(desk):
    html = desk.show(Upload("big.png", encode((3000, 1500))))
    data = base64.b64decode(re.search(r'<img src="data:image/jpeg;base64,([^"]*)"', html).group(1))
    shown = Image.open(io.BytesIO(data))
    assert shown.size == (1280, 640)
    assert not shown.getexif()


def test_crowd_gets_attention_for_its_largest_faces_only(desk):
    html = desk.show(Upload("crowd.png", encode((1290, 800))))
    assert html.count('class="fer-face"') == 29
    assert html.count('class="fer-box') == 29
    maps = [json.loads(unescape(text)) for text in re.findall(r'data-maps="([^"]*)"', html)]
    assert [bool(*one.values()) for one in maps] == [True] * ATTENDED_FACES + [False] * (29 - ATTENDED_FACES)


def test_attention_for_a_chosen_expression_reaches_the_model(desk):
    crop = Upload("crop.png", encode((48, 48)))
    maps = desk.attend(crop, "sad")
    assert desk.recognizer.attended == ["sad"]
    assert [(one["name"], one["kind"]) for one in maps] == [
        ("grad_cam", "map"),
        ("stage1.block1.se", "gates"),
        ("stage2.block1.cbam.spatial", "map"),
    ]


def test_titles_of_attention():
    assert attention_title("grad_cam") == "Grad-CAM"
    assert attention_title("stage1.block2.se") == "SE gates, stage 1, block 2"
    assert attention_title("stage2.block1.cbam.spatial") == "CBAM map, stage 2, block 1"


def test_what_a_stranger_writes_is_escaped(desk):
    name = '"><img src=x onerror=alert(1)>.png'
    found = desk.recognize(Upload(name, encode()))
    record = photo_record(name, found, "model")
    view = ResultView(found.photo, name, found.predictions, name, [name], record, to_csv([record]))
    html = result_html(view)
    assert "<img src=x" not in html
    assert safe_name("../../etc/<b>.png") == "<b>.png"
    assert safe_name("C:\\photos\\me.png") == "me.png"
    assert safe_name("") == "photo"
    long = safe_name(300 * "x" + "anna (2).png")
    assert (len(long), long[-13:]) == (255, "xanna (2).png")


def test_bad_pictures_are_refused_with_the_one_sentence(desk):
    with pytest.raises(ImageError) as refused:
        desk.show(Upload("bad.jpg", b"not a picture"))
    assert "/" not in str(refused.value).replace("HEIC/HEIF", "")
    assert str(refused.value).endswith(".")


def test_csv_has_a_row_a_face_and_no_formulas(desk):
    two = desk.record(Upload("two.png", encode((640, 480))))
    none = desk.record(Upload("=HYPERLINK(1).png", encode((100, 100))))
    bad = {"file": "bad.jpg", "error": "The picture is damaged."}
    rows = list(csv.DictReader(io.StringIO(to_csv([two, none, bad]))))
    assert [row["file"] for row in rows] == ["two.png", "two.png", "'=HYPERLINK(1).png", "bad.jpg"]
    assert [row["face"] for row in rows] == ["1", "2", "", ""]
    assert float(rows[0]["happy"]) == two["faces"][0]["scores"]["happy"]
    assert [row["label"] for row in rows[2:]] == ["", ""]
    assert [row["error"] for row in rows] == ["", "", "no face found", "The picture is damaged."]


def test_examples_ship_with_the_demo_and_name_their_source():
    sources = (example_paths()[0].parent / "SOURCES.md").read_text(encoding="utf-8")
    for path in example_paths():
        assert path.stat().st_size < 100_000
        assert path.name in sources


def test_probabilities_of_a_batch_sort_as_numbers():
    faces = [{"score": score, "between": ["happy"]} for score in (0.5, 0.499999, 0.98)]
    html = _rows({"file": "a.png", "faces": faces}, ["data:,"] * 3)
    assert re.findall(r'data-value="([^"]*)"', html) == ["0.500000", "0.499999", "0.980000"]
