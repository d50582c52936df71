"""Shared fixtures: tiny seeded models and real faces that ship with libraries, all offline."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from PIL import Image

# Code of model folders is copied here to be imported: apart from other runs, and removed with this one. Set before
# transformers is imported, as are the others.
_MODULES = tempfile.TemporaryDirectory(prefix="fer-hf-modules-")
os.environ["HF_MODULES_CACHE"] = _MODULES.name
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
torch.set_num_threads(1)  # tiny tensors: a second thread only waits


@pytest.fixture(scope="session")
def astronaut() -> Image.Image:
    """A smiling portrait, 512×512 RGB, from scikit-image."""
    from skimage import data

    return Image.fromarray(data.astronaut())


@pytest.fixture(scope="session")
def hopper() -> Image.Image:
    """A portrait, 512×606 RGB, from matplotlib's sample data."""
    from matplotlib import cbook

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return Image.open(file).convert("RGB")


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory) -> Path:
    """A saved ResNet-Swish of a few thousand parameters with seven classes and a face template, random but seeded."""
    from fer_hf.labels import FER7, id2label
    from fer_hf.models.configuration_resnet_swish import ResNetSwishConfig
    from fer_hf.models.image_processing_fer import FerImageProcessor
    from fer_hf.models.modeling_resnet_swish import ResNetSwishForImageClassification

    torch.manual_seed(0)
    config = ResNetSwishConfig(id2label=id2label(FER7), hidden_sizes=(8, 16), depths=(1, 1), attention="se")
    path = tmp_path_factory.mktemp("model")
    ResNetSwishForImageClassification(config).eval().save_pretrained(path)
    template = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
    FerImageProcessor(face_template=template).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tiny_data_path(tmp_path_factory) -> Path:
    """A folder of parquet in FER2013's layout: 7 classes that a small network can tell apart, with FER+ votes.

    140 training and 70 validation rows of 48×48 grey; training row 5 equals validation row 3.
    """
    import io

    import datasets
    import numpy as np

    from fer_hf.labels import FER7, FERPLUS_COLUMNS

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48] / 48

    def picture(label: int) -> bytes:
        stripes = np.sin(2 * np.pi * (2 + label) * (x * np.cos(label) + y * np.sin(label)))
        pixels = (128 + 70 * stripes + rng.normal(0, 25, x.shape)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()

    def votes(label: int) -> list[int]:
        counts = [0] * len(FERPLUS_COLUMNS)
        counts[FERPLUS_COLUMNS.index(FER7[label])] = 7
        counts[FERPLUS_COLUMNS.index(FER7[(label + 1) % 7])] = 3
        return counts

    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=list(FER7)),
        ferplus_votes=datasets.Sequence(datasets.Value("int32"), length=10),
    )
    folder = tmp_path_factory.mktemp("fer2013")
    pictures = {}
    for split, count in (("validation", 70), ("train", 140)):
        labels = [row % 7 for row in range(count)]
        pictures[split] = [picture(label) for label in labels]
        if split == "train":
            pictures["train"][5] = pictures["validation"][3]
        rows = {
            "image": [{"bytes": data, "path": None} for data in pictures[split]],
            "label": labels,
            "ferplus_votes": [votes(label) for label in labels],
        }
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")
    return folder


@pytest.fixture(scope="session")
def finished(tiny_data_path, tmp_path_factory) -> Path:
    """The output of one whole run of the tiny recipe."""
    from tests.tiny_recipe import run, write

    folder = tmp_path_factory.mktemp("run")
    run(write(folder, average={"ema_decay": 0.9}), tiny_data_path, folder / "out")
    return folder / "out"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A local stand-in for the Hub that this process takes for the Hub; repositories of ``user`` are its own."""
    from tests.hub_server import HubServer

    with HubServer(tmp_path / "hub") as server:
        server.redirect(monkeypatch, tmp_path / "hub_home")
        yield server
