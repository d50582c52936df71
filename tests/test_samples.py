"""Sample predictions with attention, of a data set and of a folder of outside photos."""

import numpy as np
import pytest
from PIL import Image

from fer_hf.figures import Sample, sample_figure
from tests.evaluation_runs import make_data
from training import samples


@pytest.fixture
def texts(monkeypatch) -> list[str]:
    """What the figure would show below each sample."""
    shown: list[str] = []

    def draw(found, title):
        assert "perceived expression" in title
        assert all(one.crop.shape == one.attention.shape == (192, 192, 3) for one in found)
        assert any((one.crop != one.attention).any() for one in found)
        shown.extend(one.text for one in found)

    monkeypatch.setattr(samples, "sample_figure", draw)
    monkeypatch.setattr(samples, "save_figure", lambda figure, path: None)
    return shown


def test_rows_of_a_data_set_are_shown_with_their_labels(tiny_model_path, tmp_path, texts):
    data = make_data(tmp_path)
    output = tmp_path / "new" / "samples.webp"
    arguments = ["--model", str(tiny_model_path), "--data", str(data), "--output", str(output)]
    samples.main([*arguments, "--count", "3"])
    assert output.parent.is_dir()
    first = list(texts)
    assert len(first) == 3
    assert all(text.startswith("label: ") and text.count("%") == 2 for text in first)
    texts.clear()
    samples.main([*arguments, "--count", "3", "--seed", "1"])
    assert texts != first


def test_outside_photos_need_no_layout_and_survive_a_broken_file(tiny_model_path, astronaut, tmp_path, texts, capsys):
    (tmp_path / "deep").mkdir()
    astronaut.save(tmp_path / "deep" / "portrait.jpg")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    output = tmp_path / "samples.webp"
    samples.main(["--model", str(tiny_model_path), "--photos", str(tmp_path), "--output", str(output)])
    assert [text.splitlines()[0] for text in texts] == ["portrait.jpg"]
    assert "broken.png: " in capsys.readouterr().err
    Image.new("RGB", (64, 64)).save(tmp_path / "deep" / "portrait.jpg")
    with pytest.raises(ValueError, match="no face was found"):
        samples.main(["--model", str(tiny_model_path), "--photos", str(tmp_path), "--output", str(output)])


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    with pytest.raises(ValueError, match=r"samples\.jpg was given"):
        samples.main(["--model", "no/such/model", "--photos", str(tmp_path), "--output", str(tmp_path / "samples.jpg")])


def test_the_figure_holds_a_panel_for_each_sample():
    picture = np.zeros((24, 24, 3), dtype=np.uint8)
    figure = sample_figure([Sample(picture, picture, f"text {index}") for index in range(5)], "title")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_xlabel() for axes in shown] == [f"text {index}" for index in range(5)]
    assert shown[0].images[0].get_array().shape == (24, 49, 3)
