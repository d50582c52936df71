"""Configuration of an ensemble: its members' configurations and preprocessing, and how much each counts."""

from collections.abc import Sequence
from dataclasses import field

from .configuration_fer import FerConfig

MEMBER_KEYS = ("config", "image_mean", "image_std")


def shares(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights scaled to sum 1, equal ones for None. Raises ValueError where they are not as many, negative or all 0."""
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(given) != count or min(given) < 0 or not 0 < sum(given) < float("inf"):
        raise ValueError(f"weights must be {count} numbers from 0, not all 0; {weights} was given")
    return [weight / sum(given) for weight in given]


class FerEnsembleConfig(FerConfig):
    """Several classifiers whose calibrated probabilities are averaged.

    Args:
        members: one mapping a member: ``config`` (its own config as a mapping, ``model_type`` included) and the
            ``image_mean`` and ``image_std`` (one value a channel) that its own image processor would use; perhaps a
            ``name``.
        weights: how much each member counts; not negative, scaled to sum 1. Equal where absent.
        image_mean, image_std: what the ensemble's ``pixel_values`` are normalised with, one value a channel.

    ``image_size`` and ``num_channels`` are what the ensemble takes: one member's, and the greatest of its members'.
    """

    model_type = "fer_ensemble"

    members: list[dict] = field(default_factory=list)
    weights: list[float] | tuple[float, ...] | None = None
    image_mean: list[float] | tuple[float, ...] = (0.5,)
    image_std: list[float] | tuple[float, ...] = (0.25,)

    def __post_init__(self, **kwargs):
        if self.memory_rows:
            raise ValueError("an ensemble has no memory of its own, only its members have: leave memory_rows at 0")
        super().__post_init__(**kwargs)
        if not self.members:
            raise ValueError(
                "an ensemble needs at least one member; FerEnsembleForImageClassification.from_members makes it"
            )
        self.check_members()
        self.weights = shares(self.weights, len(self.members))
        self.image_mean, self.image_std = list(self.image_mean), list(self.image_std)

    def check_members(self) -> None:
        """Raise ValueError where a member lacks a key, or knows other classes than the ensemble."""
        names = set(self.id2label.values())
        for index, member in enumerate(self.members, start=1):
            if set(member) - {"name"} != set(MEMBER_KEYS):
                raise ValueError(f"member {index} must have the keys {', '.join(MEMBER_KEYS)}; it has {sorted(member)}")
            own = set(member["config"]["id2label"].values())
            if own != names:
                raise ValueError(
                    f"member {index} knows the classes {sorted(own)}, the ensemble {sorted(names)}: members must know "
                    "the same ones, in any order"
                )
