"""Answers of several classes: which are named, and what the pipeline and the recognizer say of them."""

import json
import shutil

import numpy as np
import pytest

from fer_hf import pipeline
from fer_hf.faces import AlignedFace, Prediction
from fer_hf.labels import FER7
from fer_hf.models.configuration_resnet_swish import ResNetSwishConfig
from fer_hf.models.image_processing_fer import FerImageProcessor
from fer_hf.models.modeling_resnet_swish import ResNetSwishForImageClassification
from fer_hf.recognition import ExpressionRecognizer
from training import export


def test_an_answer_names_every_class_that_reaches_the_models_threshold(astronaut):
    def recognizer(**answers):
        labels = {0: "fear", 1: "happy", 2: "surprise"}
        config = ResNetSwishConfig(id2label=labels, hidden_sizes=(4, 8), depths=(1, 1), **answers)
        return ExpressionRecognizer.from_model(ResNetSwishForImageClassification(config), FerImageProcessor())

    def asked(**scores):
        aligned = AlignedFace(astronaut, np.eye(2, 3))
        prediction = Prediction(scores, None, aligned, answer_threshold=0.3)
        return recognizer(conformal_threshold=0.3, conformal_coverage=0.9).answer(prediction)

    assert asked(fear=0.4, happy=0.1, surprise=0.5) == ("surprise", "fear")
    assert asked(fear=0.28, happy=0.1, surprise=0.62) == ("surprise",)
    assert asked(fear=0.27, happy=0.26, surprise=0.29) == ("surprise",)  # none reaches it: the best stands alone
    with pytest.raises(ValueError, match="states no conformal_threshold"):
        recognizer().answer(Prediction({"fear": 1.0}, None, AlignedFace(astronaut, np.eye(2, 3))))


@pytest.fixture(scope="module")
def calibrated_path(tiny_model_path, tmp_path_factory):
    """The tiny model with a threshold that about half of its classes reach."""
    folder = shutil.copytree(tiny_model_path, tmp_path_factory.mktemp("calibrated") / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"conformal_threshold": 1 / 7, "conformal_coverage": 0.9}))
    return folder


def test_the_pipeline_names_the_answer_and_its_coverage_when_asked(calibrated_path, astronaut):
    fer = pipeline(model=calibrated_path, device="cpu", faces="crop")
    (row,) = fer(astronaut, answer=True, top_k=1)
    scores = fer(astronaut)[0]["scores"]
    expected = sorted((name for name in FER7 if scores[name] >= 1 / 7), key=scores.get, reverse=True)
    assert 1 <= len(expected) < 7
    assert (row["answer"], row["coverage"]) == (expected, 0.9)
    assert not {"answer", "coverage"} & fer(astronaut)[0].keys()
    always = pipeline(model=calibrated_path, device="cpu", faces="crop", answer=True)
    assert always([astronaut])[0][0]["answer"] == expected
    with pytest.raises(ValueError, match="leave out answer or tta"):
        always(astronaut, tta=True)


def test_a_model_without_a_threshold_cannot_be_asked(tiny_model_path, astronaut):
    with pytest.raises(ValueError, match="states no conformal_threshold; fit one with"):
        pipeline(model=tiny_model_path, device="cpu", faces="crop")(astronaut, answer=True)


def test_an_exported_model_answers_as_the_model_does(calibrated_path, astronaut, tmp_path):
    export.main(["--model", str(calibrated_path), "--output", str(tmp_path)])
    rows = [
        pipeline(model=path, device="cpu", faces="crop", **more)(astronaut, answer=True)[0]
        for path, more in ((calibrated_path, {}), (tmp_path, {"backend": "onnx"}))
    ]
    assert [(row["answer"], row["coverage"]) for row in rows] == [(rows[0]["answer"], 0.9)] * 2


def test_a_prediction_carries_the_threshold_of_one_view_only(calibrated_path, astronaut):
    recognizer = ExpressionRecognizer.from_pretrained(calibrated_path)
    found, _ = recognizer.locate(astronaut, "crop")
    assert recognizer.predict(found)[0].answer_threshold == 1 / 7
    (mean,) = recognizer.predict(found, tta=True)
    assert mean.answer_threshold is None
    with pytest.raises(ValueError, match="fitted on one view"):
        recognizer.answer(mean)
