"""What every model configuration of this project shares."""

from dataclasses import fields
from typing import ClassVar

from transformers import PreTrainedConfig

# Keys that transformers itself writes into config.json or passes on, beside the dataclass fields.
_FOREIGN_KEYS = frozenset(
    (
        "attn_implementation",
        "auto_map",
        "experts_implementation",
        "model_type",
        "name_or_path",
        "num_labels",
        "output_attentions",
        "torch_dtype",
        "use_cache",
    )
)


class FerConfig(PreTrainedConfig):
    """Base configuration: labels, input geometry and temperature.

    Args:
        id2label: class index to name; required.
        label2id: the inverse; derived from ``id2label`` where absent.
        image_size: side of the square input in pixels.
        num_channels: 1 (grey) or 3 (RGB).
        temperature: the returned logits are the raw logits divided by this, so that their softmax is calibrated
            (Guo et al., arXiv 1706.04599).
        conformal_threshold: every class at or above this probability (single view, after temperature) belongs to the
            answer, such as "fear or surprise"; None where none was fitted (Sadinle et al., arXiv 1609.00451).
        conformal_coverage: how often such an answer holds the label, on pictures like those it was fitted on.
        memory_rows: how many training rows the model remembers beside its weights (``layers_memory``); 0 for none.
        memory_width: how many numbers the memory compares of a picture, before it brings them down to ``memory_size``.
        memory_size: bytes of each remembered row.
        memory_weight: how often a remembered row that looks just like the picture counts, the classifier counting once.
        memory_temperature: how soon a row that looks less alike counts less: by exp(-(1 - cosine) / this).

    Raises ValueError for unknown keys, missing or inconsistent labels, and values out of range.
    """

    has_no_defaults_at_init: ClassVar[bool] = True
    # What transformers' Trainer leaves out of predictions, which then are the logits.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["raw_logits", "hidden_states", "attentions"]

    image_size: int = 48
    num_channels: int = 1
    temperature: float = 1.0
    conformal_threshold: float | None = None
    conformal_coverage: float | None = None
    memory_rows: int = 0
    memory_width: int = 0
    memory_size: int = 32
    memory_weight: float = 30.0
    memory_temperature: float = 0.045

    def __post_init__(self, **kwargs):
        unknown = sorted(key for key in kwargs if not key.startswith("_") and key not in _FOREIGN_KEYS)
        if unknown:
            known = sorted(field.name for field in fields(self) if not field.name.startswith("_"))
            raise ValueError(f"unknown {self.model_type} config key {unknown[0]!r}; known are {', '.join(known)}")
        if self.id2label is None:
            raise ValueError(
                f"{type(self).__name__} needs id2label, such as {{0: 'angry', 1: 'happy'}}; none was given"
            )
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be a positive number; {self.temperature} was given")
        answer = (self.conformal_threshold, self.conformal_coverage)
        if answer != (None, None) and (None in answer or not (0 <= answer[0] <= 1 and 0 < answer[1] < 1)):
            raise ValueError(
                f"conformal_threshold must be in [0, 1] and conformal_coverage in (0, 1), or both null; {answer[0]} "
                f"and {answer[1]} were given"
            )
        if self.memory_rows < 0 or self.memory_size < 1:
            raise ValueError(
                f"memory_rows must be 0 or more and memory_size 1 or more; {self.memory_rows} and {self.memory_size} "
                "were given"
            )
        if self.memory_rows and self.memory_width < self.memory_size:
            raise ValueError(
                f"a memory brings memory_width numbers down to memory_size; {self.memory_width} and {self.memory_size} "
                "were given"
            )
        if not 0 < self.memory_weight < float("inf") or not 0 < self.memory_temperature < float("inf"):
            raise ValueError(
                f"memory_weight and memory_temperature must be positive; {self.memory_weight} and "
                f"{self.memory_temperature} were given"
            )
        if self.num_channels not in (1, 3):
            raise ValueError(f"num_channels must be 1 (grey) or 3 (RGB); {self.num_channels} was given")
        super().__post_init__(**kwargs)
        if sorted(self.id2label) != list(range(len(self.id2label))):
            raise ValueError(f"id2label must number its classes from 0 without gaps; {sorted(self.id2label)} was given")
        inverse = {name: index for index, name in self.id2label.items()}
        if len(inverse) != len(self.id2label):
            raise ValueError(f"id2label names a class twice: {list(self.id2label.values())}")
        if self.label2id is not None and {name: int(index) for name, index in self.label2id.items()} != inverse:
            raise ValueError(f"label2id {self.label2id} is not the inverse of id2label {self.id2label}")
        self.label2id = inverse

    def _get_generation_parameters(self) -> dict:
        # Up to 5.17, transformers takes `temperature` for text generation's and refuses to save the config.
        return {}
