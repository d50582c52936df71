"""Shared fixtures: tiny seeded models and real faces that ship with libraries, all offline."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from pathlib import Path

import pytest
import torch
from PIL import Image

torch.set_num_threads(2)


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
