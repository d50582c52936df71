"""Expression vocabularies: the one place that knows class names, their order and the other names they go by."""

from collections.abc import Iterable

FER7 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""FER2013's seven classes in its order (Goodfellow et al., arXiv 1307.0414)."""

VOCABULARIES: dict[int, tuple[str, ...]] = {
    5: ("angry", "fear", "happy", "sad", "surprise"),
    7: FER7,
    8: (*FER7, "contempt"),
}

FERPLUS_COLUMNS = (
    "neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt", "unknown", "not a face",
)  # fmt: skip
"""The ten vote columns of FER+ in file order, in this project's names (Barsoum et al., arXiv 1608.01041)."""

ALIASES: dict[str, tuple[str, ...]] = {
    "angry": ("anger", "an"),
    "disgust": ("disgusted", "di"),
    "fear": ("fearful", "afraid", "scared", "fe"),
    "happy": ("happiness", "joy", "happily", "ha"),
    "sad": ("sadness", "sa"),
    "surprise": ("surprised", "suprise", "su"),
    "neutral": ("neutrality", "calm", "ne"),
    "contempt": ("contemptuous", "co"),
}
_CANONICAL = {alias: name for name, aliases in ALIASES.items() for alias in (name, *aliases)}


def canonical_label(name: str) -> str:
    """This project's name for a class name in any case, e.g. ``Anger`` or ``HAPPINESS``.

    Raises ValueError that lists the known names.
    """
    key = name.strip().lower()
    if key not in _CANONICAL:
        raise ValueError(f"unknown expression {name!r}; known are {', '.join(ALIASES)} and their usual synonyms")
    return _CANONICAL[key]


def vocabulary(num_classes: int) -> tuple[str, ...]:
    """The class names of the 5-, 7- or 8-class vocabulary, in order."""
    if num_classes not in VOCABULARIES:
        raise ValueError(f"no vocabulary of {num_classes} classes; choose one of {sorted(VOCABULARIES)}")
    return VOCABULARIES[num_classes]


def id2label(names: Iterable[str]) -> dict[int, str]:
    """The mapping a transformers config wants, from class names in order."""
    return dict(enumerate(names))


def label2id(names: Iterable[str]) -> dict[str, int]:
    """The inverse of ``id2label``."""
    return {name: index for index, name in enumerate(names)}
