import json

import numpy as np
import pytest
from PIL import Image

from fer_hf.detection import MTCNNDetector
from tests.data_folders import fer_csv
from training.face_template import crop_motions, find_landmarks, main, summarize, symmetric_median

TEMPLATE = np.array([(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)])


def test_the_median_of_crops_and_their_mirror_images_is_symmetric():
    leaning = TEMPLATE + np.array((0.04, 0.01))
    assert symmetric_median(np.stack([leaning] * 3)) == pytest.approx(TEMPLATE + np.array((0, 0.01)))


def test_motions_are_those_that_were_put_in():
    turn, scale = np.deg2rad(10), 1.25
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    crop = ((TEMPLATE - 0.5) - (0.1, -0.05)) @ np.linalg.inv(rotation).T + 0.5  # the template is its image
    motions = crop_motions(np.stack([TEMPLATE, crop]), TEMPLATE)
    assert motions["shift_x"] == pytest.approx([0, 0.1])
    assert motions["shift_y"] == pytest.approx([0, -0.05])
    assert motions["log_scale"] == pytest.approx([0, np.log(1.25)])
    assert motions["rotation_deg"] == pytest.approx([0, 10])
    assert motions["residual"] == pytest.approx([0, 0], abs=1e-12)


def test_summary_of_known_values():
    figures = summarize(np.arange(101) / 100)
    assert figures == {"median": 0.5, "std": 0.2915, "robust_std": 0.3706, "q05": 0.05, "q95": 0.95}


def test_landmarks_are_normalised_to_the_crop(hopper):
    box = (170, 130, 370, 330)
    detector = MTCNNDetector(min_face_share=0.25)
    points = find_landmarks(hopper.crop(box).resize((48, 48), Image.Resampling.BOX), detector)
    (face,) = detector.detect(hopper).faces
    expected = (np.array(face.landmarks) - box[:2]) / 200
    assert points == pytest.approx(expected, abs=0.04)
    assert find_landmarks(Image.new("L", (48, 48), 90), detector) is None


def test_the_command_writes_template_spread_and_figure(tmp_path, hopper):
    rows = []
    for shift in (-6, 0, 6):
        crop = hopper.crop((170 + shift, 130, 370 + shift, 330)).convert("L").resize((48, 48), Image.Resampling.BOX)
        rows.append((6, " ".join(map(str, np.asarray(crop).ravel())), "Training"))
    rows.append((0, " ".join(["90"] * 48 * 48), "Training"))
    data = fer_csv(tmp_path / "fer2013.csv", rows)
    output, figure = tmp_path / "template.json", tmp_path / "figures" / "template.png"

    main(["--data", str(data), "--output", str(output), "--figure", str(figure)])

    report = json.loads(output.read_text())
    template = np.array(report["face_template"])
    assert (report["detected"], report["of"], report["seed"]) == (3, 4, 0)
    assert template[[1, 0, 2, 4, 3]] * (-1, 1) + (1, 0) == pytest.approx(template, abs=1e-4)
    assert template[0, 1] < template[2, 1] < template[3, 1]
    assert report["spread"]["shift_x"]["q95"] - report["spread"]["shift_x"]["q05"] == pytest.approx(0.054, abs=0.03)
    assert Image.open(figure).width > 1000


def test_data_without_faces_is_refused(tmp_path, capsys):
    data = fer_csv(tmp_path / "fer2013.csv", [(0, " ".join(["90"] * 48 * 48), "Training")])
    with pytest.raises(SystemExit):
        main(["--data", str(data), "--output", str(tmp_path / "template.json")])
    assert "no face was found in 1 crops" in capsys.readouterr().err
    assert not (tmp_path / "template.json").exists()
