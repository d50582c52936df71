"""Perceived facial expression recognition for the Hugging Face ecosystem.

Importing this package makes our model folders load through transformers' Auto classes and adds the pipeline task
``facial-expression-recognition``. The names below are imported when they are first used.
"""

from importlib import import_module

from . import registry

__version__ = "0.1.0"

_HOMES = {
    "ExpressionRecognizer": "recognition",
    "FacialExpressionPipeline": "pipelines",
    "ImageError": "image_io",
    "MTCNNDetector": "detection",
    "ModelError": "hub",
    "default_model_path": "hub",
    "load_model": "hub",
    "pipeline": "pipelines",
    "read_image": "image_io",
    "save_portable": "hub",
    "warp_to_photo": "attention",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


registry.register()
