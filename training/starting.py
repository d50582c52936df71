"""What a network starts from: another saved model's weights, whole or as far as they fit."""

import torch
from torch import nn

from fer_hf.hub import LoadedModel

CLASSIFIER = "classifier."


def continue_from(start: LoadedModel, labels: dict) -> nn.Module:
    """The saved model itself; where its classes are not ``labels``, the same network with a new classifier."""
    model = start.model
    if model.config.id2label != labels["id2label"]:
        model = type(model)(type(model.config)(**{**model.config.to_dict(), **labels}))
        _take_over(model, start)
    model.config.temperature = 1.0  # this and the answer sets were fitted to the weights it had
    model.config.conformal_threshold = model.config.conformal_coverage = None
    return model


def warm_start(model: nn.Module, start: LoadedModel) -> str:
    """Give another network every weight of a saved one that has its name and shape, and say what stays new.

    Raises ValueError where less than half of the network's parameters find their like, since that is no start.
    """
    new = _take_over(model, start)
    own = dict(model.named_parameters())
    filled = sum(weight.numel() for name, weight in own.items() if name not in new)
    total = sum(weight.numel() for weight in own.values())
    if filled < total / 2:
        raise ValueError(
            f"model.start_from: {start.source} fits {filled:,} of the {total:,} parameters of this network; start from"
            " a model of the same backbone, or from none"
        )
    modules = sorted({name.rsplit(".", 1)[0] for name in new if name in own})
    return f"{filled:,} of {total:,} parameters come from {start.source}; new: {', '.join(modules) or 'none'}"


def _take_over(model: nn.Module, start: LoadedModel) -> set[str]:
    """Fill ``model`` with the weights that fit, the classifier only where the classes are the same; returns the rest.

    Of a saved model whose own network this is, everything but the classifier fits.
    """
    own = model.state_dict()
    same_classes = model.config.id2label == start.model.config.id2label
    fitting = {
        name: weight
        for name, weight in start.model.state_dict().items()
        if name in own and own[name].shape == weight.shape and (same_classes or not name.startswith(CLASSIFIER))
    }
    with torch.no_grad():
        model.load_state_dict(fitting, strict=False)
    return own.keys() - fitting.keys()
