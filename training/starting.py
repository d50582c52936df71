"""What a network starts from: another saved model's weights, whole or as far as they fit."""

import torch
from torch import nn

from fer_hf.hub import LoadedModel, load_model
from fer_hf.models.image_processing_fer import FerImageProcessor
from fer_hf.models.modeling_fer import FerPreTrainedModel

CLASSIFIER = "classifier."


def load_ours(name_or_path: str, use: str) -> LoadedModel:
    """A saved model of this package. Raises ValueError for others, of which only ours ``use``."""
    loaded = load_model(name_or_path)
    if not isinstance(loaded.model, FerPreTrainedModel) or not isinstance(loaded.processor, FerImageProcessor):
        raise ValueError(f"{name_or_path} is a {loaded.model.config.model_type}; only models of fer_hf {use}")
    return loaded


def continue_from(start: LoadedModel, labels: dict) -> nn.Module:
    """The saved model itself; where its classes are not ``labels``, with a classifier that keeps those it knows."""
    model = start.model
    if model.config.id2label != labels["id2label"]:
        model = type(model)(type(model.config)(**{**model.config.to_dict(), **labels}))
        _take_over(model, start)
    model.unfit()
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
    """Fill ``model`` with the weights that fit; returns the names of those that stay new.

    Where the classes differ, the classifier's rows of classes of the same name are taken, and the rest of it is new. Of
    a saved model whose own network this is, everything else fits.
    """
    own, given = model.state_dict(), start.model.state_dict()
    same = model.config.id2label == start.model.config.id2label
    fitting = {
        name: weight
        for name, weight in given.items()
        if name in own and own[name].shape == weight.shape and (same or not name.startswith(CLASSIFIER))
    }
    rows = {} if same else _classifier_rows(own, given, model.config.id2label, start.model.config.id2label)
    model.load_state_dict(fitting | rows, strict=False)
    return own.keys() - fitting.keys()


def _classifier_rows(own: dict, given: dict, labels: dict[int, str], known: dict[int, str]) -> dict[str, torch.Tensor]:
    """The new classifier's tensors with rows of the old one where both know a class by the same name."""
    index = {name: number for number, name in known.items()}
    shared = {number: index[name] for number, name in labels.items() if name in index}
    filled = {}
    for name in (name for name in own if name.startswith(CLASSIFIER) and name in given):
        if shared and own[name].shape[1:] == given[name].shape[1:]:
            filled[name] = own[name].clone()
            filled[name][list(shared)] = given[name][list(shared.values())].to(own[name].dtype)
    return filled
