"""Figures as files: drawings and photographs, each stored small."""

import numpy as np
import pytest
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
    figures = [sample_figure([Sample(picture, picture, "label: happy")], "samples") for _ in range(2)]
    full = save_figure(figures[0], tmp_path / "samples.png")
    small = save_figure(figures[1], tmp_path / "samples.webp")
    with Image.open(full) as exact, Image.open(small) as stored:
        assert (exact.format, exact.mode, stored.format) == ("PNG", "RGB", "WEBP")
        assert len(exact.getcolors(1 << 24)) > 4096
        difference = np.asarray(stored.convert("RGB"), float) - np.asarray(exact, float)
    assert np.abs(difference).mean() < 2
    assert small.stat().st_size < full.stat().st_size / 2


def test_a_figure_is_a_png_or_a_webp(tmp_path):
    figure = sample_figure([Sample(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8), "text")], "samples")
    with pytest.raises(ValueError, match=r"written as \.png or \.webp; samples\.pdf was given"):
        save_figure(figure, tmp_path / "samples.pdf")
    assert not list(tmp_path.iterdir())
