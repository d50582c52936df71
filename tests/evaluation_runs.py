"""A made data set, and training/eval.py run on it without timing and, unless asked, without drawing."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Sequence, Value
from PIL import Image as PILImage

from training import cost
from training import eval as evaluation

ROWS, WITHOUT_MAJORITY = 60, 6


def make_data(folder: Path) -> Path:
    """Equal validation and test splits of 60 rows: one picture twice, six rows without a FER+ majority."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (48, 48), dtype=np.uint8) for _ in range(ROWS)]
    pictures[1] = pictures[0]
    labels = rng.integers(0, 7, ROWS)
    labels[1] = labels[0]
    column_of = np.array([4, 5, 6, 1, 3, 2, 0])  # FER+ columns in the order of FER2013's labels
    votes = np.zeros((ROWS, 10), dtype=np.int32)
    votes[np.arange(ROWS), column_of[labels]] = 8
    votes[:, 7] = 2
    votes[-WITHOUT_MAJORITY:] = [5, 5, 0, 0, 0, 0, 0, 0, 0, 0]
    features = Features(image=Image(), label=Value("int64"), ferplus_votes=Sequence(Value("int32")))
    columns = {"image": [_png(p) for p in pictures], "label": labels.tolist(), "ferplus_votes": votes.tolist()}
    Dataset.from_dict(columns, features=features).to_parquet(folder / "validation.parquet")
    shutil.copy(folder / "validation.parquet", folder / "test.parquet")
    return folder


def _png(pixels: np.ndarray) -> dict:
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def run(model: Path, data: Path, output: Path, *more: object, draw: Callable | None = None) -> dict:
    """The report of one command line; ``draw`` stands in for ``save_figure``, and None draws nothing.

    Empty where several models were scored.
    """
    arguments = ["--model", model, "--data", data, "--output", output, "--resamples", "200", *more]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "save_figure", draw or (lambda figure, path: None))
        patch.setattr(cost, "measure_ms_per_face", lambda model: 1.0)
        evaluation.main([str(argument) for argument in arguments])
    path = output if output.suffix else output / "report.json"
    return json.loads(path.read_text()) if path.is_file() else {}
