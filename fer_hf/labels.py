"""Expression vocabularies: the one place that knows class names, their order and the other names they go by."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

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
    "unknown": ("none", "uncertain"),
    "not a face": ("nf", "not face", "non face", "nonface", "notaface"),
}
"""Every name a data set may use, under this project's name; the last two are in no vocabulary."""
_CANONICAL = {alias: name for name, aliases in ALIASES.items() for alias in (name, *aliases)}

NUMBERINGS: dict[str, dict[int, str]] = {
    "fer2013": dict(enumerate(FER7)),
    "ckextended": dict(enumerate((*FER7, "contempt"))),
    "raf-db": dict(enumerate(("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"), start=1)),
    "affectnet": {
        **dict(enumerate(("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt"))),
        **{8: "unknown", 9: "unknown", 10: "not a face"},
    },
}
"""What numbers mean as labels: FER2013 (arXiv 1307.0414), CK+ as pixels in a CSV (``ckextended.csv``), RAF-DB (CVPR
2017, from 1), AffectNet (arXiv 1708.03985)."""


def canonical_label(name: str) -> str:
    """This project's name for a class name in any case, e.g. ``Anger``, ``HAPPINESS`` or ``3_sad``.

    Raises ValueError that lists the known names.
    """
    key = re.sub(r"[-_\s]+", " ", name.strip().lower())
    key = re.sub(r"^\d+[ .)]+(?=\D)", "", key)
    if key not in _CANONICAL:
        near = difflib.get_close_matches(key, _CANONICAL, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown expression {name!r}; known are {', '.join(ALIASES)} and their usual synonyms{hint}")
    return _CANONICAL[key]


def numbering_of(numbers: Iterable[int]) -> str:
    """The numbering that a data set's label numbers fit: 1 to 7 is RAF-DB's, beyond that AffectNet's, else FER2013's.

    Raises ValueError for numbers that no numbering has.
    """
    numbers = set(numbers)
    if not numbers <= set(NUMBERINGS["affectnet"]):
        strange = sorted(numbers - set(NUMBERINGS["affectnet"]))
        raise ValueError(f"label numbers {strange} are in no known numbering; 0 to 6 are FER2013's, 1 to 7 RAF-DB's")
    if 7 not in numbers and max(numbers, default=0) < 7:
        return "fer2013"
    return "raf-db" if numbers <= set(NUMBERINGS["raf-db"]) else "affectnet"


def target_label(name: str, names: Sequence[str], remap: Mapping[str, str | None]) -> str | None:
    """Which of ``names`` a data set's class becomes: what ``remap`` says, else itself; None: its rows are left out."""
    name = remap.get(name, name)
    return name if name in names else None


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
