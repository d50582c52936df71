"""Figures as files: drawings are stored small, photographs as they are."""

import numpy as np
from PIL import Image

from fer_hf.figures import Sample, confusion_figure, sample_figure, save_figure


def test_a_drawing_is_stored_with_a_palette_and_looks_the_same(tmp_path):
    drawn = [confusion_figure(np.array([[40, 2], [5, 31]]), ("happy", "sad"), "confusion") for _ in range(2)]
    path = save_figure(drawn[0], tmp_path / "confusion.png")
    drawn[1].savefig(tmp_path / "full.png", dpi=144, facecolor="white")
    with Image.open(path) as stored, Image.open(tmp_path / "full.png") as full:
        assert stored.mode == "P"
        difference = np.asarray(stored.convert("RGB"), float) - np.asarray(full.convert("RGB"), float)
    assert np.abs(difference).mean() < 1
    assert np.abs(difference).max() < 64
    assert (difference == 0).mean() > 0.95
    assert path.stat().st_size < (tmp_path / "full.png").stat().st_size / 2


def test_photographs_keep_their_colours(tmp_path, astronaut):
    picture = np.asarray(astronaut.resize((192, 192)))
    path = save_figure(sample_figure([Sample(picture, picture, "label: happy")], "samples"), tmp_path / "samples.png")
    with Image.open(path) as stored:
        assert stored.mode == "RGB"
        assert len(stored.convert("RGB").getcolors(1 << 24)) > 4096
