"""The model types installed here, and how transformers learns of them.

Transformers' Auto classes and pipelines take seconds to import. So ``import fer_hf`` imports none of them: what is
already imported is told at once, the rest as soon as somebody imports it.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

MODEL_TYPES = {
    # config.model_type: (configuration module, its class, modeling module, its class)
    "fer_resnet_swish": (
        "configuration_resnet_swish",
        "ResNetSwishConfig",
        "modeling_resnet_swish",
        "ResNetSwishForImageClassification",
    ),
    "fer_cbam_5cnn": (
        "configuration_cbam_5cnn",
        "CBAM5CNNConfig",
        "modeling_cbam_5cnn",
        "CBAM5CNNForImageClassification",
    ),
    "fer_timm": ("configuration_timm", "TimmConfig", "modeling_timm", "TimmForImageClassification"),
    "fer_se_efficientnet": (
        "configuration_timm",
        "SEEfficientNetConfig",
        "modeling_timm",
        "SEEfficientNetForImageClassification",
    ),
    "fer_ensemble": (
        "configuration_ensemble",
        "FerEnsembleConfig",
        "modeling_ensemble",
        "FerEnsembleForImageClassification",
    ),
}
"""One entry makes a model type loadable by the Auto classes, the pipeline and the app."""

TASK = "facial-expression-recognition"


def config_class(model_type: str) -> type:
    module, name, _, _ = MODEL_TYPES[model_type]
    return getattr(import_module(f".models.{module}", __package__), name)


def model_class(model_type: str) -> type:
    _, _, module, name = MODEL_TYPES[model_type]
    return getattr(import_module(f".models.{module}", __package__), name)


def _register_configs(auto: ModuleType) -> None:
    for model_type in MODEL_TYPES:
        auto.AutoConfig.register(model_type, config_class(model_type), exist_ok=True)


def _register_models(auto: ModuleType) -> None:
    for model_type in MODEL_TYPES:
        auto.AutoModelForImageClassification.register(config_class(model_type), model_class(model_type), exist_ok=True)


def _register_processor(auto: ModuleType) -> None:
    from .models.image_processing_fer import FerImageProcessor

    # One class, on Pillow and torch: it answers for both of transformers' backends.
    backends = {"pil": FerImageProcessor, "torchvision": FerImageProcessor}
    for model_type in MODEL_TYPES:
        auto.AutoImageProcessor.register(config_class(model_type), image_processor_classes=backends, exist_ok=True)


def _register_pipeline(pipelines: ModuleType) -> None:
    import_module(".pipelines", __package__)  # registers its task itself, also where it is imported first


_ON_IMPORT: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _register_configs,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.models.auto.image_processing_auto": _register_processor,
    "transformers.pipelines": _register_pipeline,
}


class _Registrar(importlib.abc.MetaPathFinder):
    """Finds the modules of ``_ON_IMPORT`` as the other finders do, and registers once their code has run."""

    def find_spec(self, fullname, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _ON_IMPORT:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_register(module: ModuleType) -> None:
                run(module)
                _ON_IMPORT[fullname](module)

            spec.loader.exec_module = run_and_register
        return spec


def register() -> None:
    """Tell transformers of our classes: what it has imported now, the rest when it is imported."""
    for name, tell in _ON_IMPORT.items():
        if name in sys.modules:
            tell(sys.modules[name])
    sys.meta_path.insert(0, _Registrar())
