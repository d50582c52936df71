"""Average the weights of models that began from the same ones: ``python training/soup.py A B [C …] --output DIR``.

Model soups (Wortsman et al., arXiv 2203.05482); with the model that training went on from among them, WiSE-FT (Wortsman
et al., arXiv 2109.01903). The mean costs no more than one of them to run. Weights that began apart have no useful mean:
evaluate it. ``soup.json`` says what was averaged; ``recipe.yaml`` is the first model's. What was fitted to one of them
goes: memory, temperature, answer sets.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from fer_hf.hub import ModelError, save_portable
from fer_hf.models.configuration_ensemble import shares
from fer_hf.models.modeling_fer import FerPreTrainedModel
from training.files import require_free, write_json, write_text
from training.provenance import read_used, record_used, used_by_any
from training.scoring import Loaded, load

FILE_NAME = "soup.json"
_OF_A_FILE = ("_name_or_path", "architectures", "auto_map", "dtype", "transformers_version")
"""What a config says of the file that it came from, and not of the network."""


def average(models: Sequence[FerPreTrainedModel], weights: Sequence[float]) -> None:
    """Give the first model the weighted mean of all models' weights and of the statistics of their batch norms.

    Counters stay the first one's. Raises ValueError for models that are not the same network with other weights.
    """
    first, *others = models
    for model in models:
        model.unfit()
    for other in others:
        if differing := _differing(_described(first), _described(other)):
            raise ValueError(
                f"only weights of the same network have a mean; the configs differ in {', '.join(differing)}"
            )
    states = [model.state_dict() for model in models]
    with torch.no_grad():
        for name, value in states[0].items():
            if value.is_floating_point():
                parts = [weight * state[name].double() for weight, state in zip(weights, states, strict=True)]
                value.copy_(sum(parts))


def _described(model: FerPreTrainedModel) -> dict:
    config = model.config.to_dict()
    return {key: config[key] for key in config if key not in _OF_A_FILE and not key.startswith("memory_")}


def _differing(mine: dict, its: dict) -> list[str]:
    return sorted(key for key in {*mine, *its} if mine.get(key) != its.get(key))


def check(loaded: Sequence[Loaded]) -> None:
    """Raises ValueError where the models' image processors differ, since then their weights expect other pictures."""
    first, *others = loaded
    for other in others:
        if differing := _differing(first.processor.to_dict(), other.processor.to_dict()):
            raise ValueError(
                f"{first.name} and {other.name} do not take the same pictures; their image processors differ in "
                f"{', '.join(differing)}"
            )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="two or more model folders or Hub ids")
    parser.add_argument("--weights", nargs="+", type=float, help="one a model; equal where absent")
    parser.add_argument("--output", required=True, type=Path, help="the model folder to write, a new one")
    arguments = parser.parse_args(argv)
    if len(arguments.models) < 2:
        raise ValueError(f"a mean is of two or more models; {len(arguments.models)} was given")
    require_free(arguments.output)
    weights = shares(arguments.weights, len(arguments.models))
    loaded = [load(model, "cpu") for model in arguments.models]
    check(loaded)
    average([one.model for one in loaded], weights)
    folder = save_portable(loaded[0].model, loaded[0].processor, arguments.output)
    if (recipe := loaded[0].folder / "recipe.yaml").is_file():
        write_text(folder / "recipe.yaml", recipe.read_text(encoding="utf-8"))
    used = used_by_any([read_used(one.folder) for one in loaded])
    record_used(folder, {role: one for role, one in used.items() if role != "temperature"})
    averaged = zip(loaded, weights, strict=True)
    parts = [{"model": one.name, "weights_sha256": one.weights_sha256, "weight": weight} for one, weight in averaged]
    write_json(folder / FILE_NAME, {"averaged": parts})
    print(f"the mean of {len(loaded)} models is in {folder}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, ModelError) as error:
        sys.exit(f"soup.py: {error}")
