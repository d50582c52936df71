"""Two real portraits, in every form that people have them in, get the same faces and expressions from the default."""

import numpy as np
import pytest

from fer_hf import hub
from fer_hf.faces import iou_xyxy
from fer_hf.recognition import ExpressionRecognizer, Recognition
from tests.pictures import photo_variants

pytestmark = pytest.mark.skipif(
    not hub.default_model_path().is_dir(), reason="the default model is not in model_cards yet"
)

# Drawn by hand on the upright photos: forehead to chin, ear to ear.
HAND_DRAWN_BOXES = {"astronaut": (178, 60, 265, 172), "hopper": (172, 128, 352, 338)}
NAMES = [
    *("jpeg.jpg", "png.png", "webp.webp", "tiff.tif", "grey16.png", "cmyk.jpg", "rgba.png"),
    *(f"orientation-{tag}.jpg" for tag in range(1, 9)),
    *("heic.heic", "heic-named.jpg", "gif.gif", "bmp.bmp", "avif.avif"),
]


@pytest.fixture(scope="module")
def recognizer() -> ExpressionRecognizer:
    return ExpressionRecognizer.from_pretrained(hub.default_model_path())


@pytest.fixture(scope="module")
def results(recognizer, astronaut, hopper, tmp_path_factory) -> dict[str, dict[str, Recognition]]:
    """Photo -> form -> what was recognized in the file of that name."""
    folder = tmp_path_factory.mktemp("variants")
    found = {}
    for photo, image in (("astronaut", astronaut), ("hopper", hopper)):
        found[photo] = {}
        for name, content in photo_variants(image).items():
            (folder / name).write_bytes(content)
            found[photo][name] = recognizer.recognize(folder / name)
    return found


def scores(result: Recognition) -> np.ndarray:
    return np.array(list(result.predictions[0].scores.values()))


@pytest.mark.parametrize("photo", HAND_DRAWN_BOXES)
def test_every_form_is_tried(results, photo):
    assert list(results[photo]) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("photo", HAND_DRAWN_BOXES)
def test_the_face_is_found_upright_with_the_same_expression(results, photo, name):
    result, reference = results[photo][name], results[photo]["png.png"]
    assert result.photo.size == reference.photo.size
    prediction, *others = result.predictions  # the largest first
    assert all(other.face.score < 0.9 for other in others)  # compression can leave a doubtful second box
    assert iou_xyxy(prediction.face.box_xyxy, HAND_DRAWN_BOXES[photo]) >= 0.5
    assert prediction.label == reference.predictions[0].label
    if name != "grey16.png":
        np.testing.assert_allclose(scores(result), scores(reference), atol=0.05)


def test_the_astronaut_is_perceived_as_happy(results):
    for result in results["astronaut"].values():
        assert result.predictions[0].label == "happy"
        assert result.predictions[0].score >= 0.7


@pytest.mark.parametrize("library", ["fer_hf", "transformers"])
def test_the_task_alone_gives_the_default_model(library, results, astronaut):
    import importlib

    fer = importlib.import_module(library).pipeline("facial-expression-recognition", device="cpu")
    (row,) = fer(astronaut)
    expected = results["astronaut"]["png.png"].predictions[0]
    assert row["scores"] == pytest.approx(expected.scores, abs=1e-6)
    assert list(row["box"].values()) == [round(edge) for edge in expected.face.box_xyxy]
