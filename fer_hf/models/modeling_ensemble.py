"""An ensemble as one model: the weighted mean of its members' calibrated probabilities.

All members take the same ``pixel_values``. Each gets them in its own size, channels and normalisation; a resize is
bilinear and antialiased as in the image processor, but on floats, so a member sees its own processor's numbers up to
the rounding of one grey level.
"""

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_ensemble import FerEnsembleConfig
from .image_processing_fer import FerImageProcessor
from .modeling_cbam_5cnn import CBAM5CNNForImageClassification
from .modeling_fer import FerPreTrainedModel
from .modeling_resnet_swish import ResNetSwishForImageClassification
from .modeling_timm import SEEfficientNetForImageClassification, TimmForImageClassification

MEMBER_CLASSES = {
    member.config_class.model_type: member
    for member in (
        CBAM5CNNForImageClassification,
        ResNetSwishForImageClassification,
        SEEfficientNetForImageClassification,
        TimmForImageClassification,
    )
}
LUMA = (0.299, 0.587, 0.114)
"""ITU-R 601, as Pillow converts RGB to grey."""
# What describes a saved file, or a rule for answers, rather than the network.
_NOT_OF_A_MEMBER = frozenset(
    (
        "architectures",
        "auto_map",
        "conformal_coverage",
        "conformal_threshold",
        "dtype",
        "name_or_path",
        "transformers_version",
    )
)


def shared_processor(processors: Sequence[FerImageProcessor], image_size: int | None = None) -> FerImageProcessor:
    """The image processor of an ensemble: the greatest size or another member's, RGB if any is, its normalisation.

    Raises ValueError where the members frame faces differently, since they would need different crops, or none of them
    has that ``image_size``.
    """
    sizes = {processor.size_px for processor in processors}
    if image_size not in (None, *sizes):
        raise ValueError(
            f"image_size is {image_size}; choose the size of a member: {', '.join(map(str, sorted(sizes)))}"
        )
    first, *others = processors
    for other in others:
        if (other.face_template, other.face_margin) != (first.face_template, first.face_margin):
            raise ValueError(
                "the members of an ensemble must frame faces alike: their image processors differ in face_template or "
                "face_margin; train them on the same crops"
            )
    richest = max(processors, key=lambda processor: processor.num_channels)
    return FerImageProcessor(
        size=image_size or max(sizes),
        num_channels=richest.num_channels,
        image_mean=richest.image_mean,
        image_std=richest.image_std,
        face_template=first.face_template,
        face_margin=first.face_margin,
    )


class FerEnsembleForImageClassification(FerPreTrainedModel):
    """(B, num_channels, image_size, image_size) -> logits (B, K): the log of the weighted mean probability.

    Their softmax is that mean, so the ensemble works wherever a single model does. ``attentions`` and
    ``attention_names`` are the members', in order, prefixed with ``member1.`` and so on.
    """

    config_class = FerEnsembleConfig

    def __init__(self, config: FerEnsembleConfig):
        super().__init__(config)
        config.check_members()  # from_pretrained(..., id2label=new) sets classes on a finished config
        self.members = nn.ModuleList(_build_member(member["config"]) for member in config.members)
        self.attention_names = tuple(
            f"member{index}.{name}" for index, member in enumerate(self.members, 1) for name in member.attention_names
        )
        names = [config.id2label[index] for index in range(len(config.id2label))]
        self._class_orders = [[member.config.label2id[name] for name in names] for member in self.members]
        for index, member in enumerate(self.members, 1):
            if member.config.num_channels > config.num_channels:
                raise ValueError(
                    f"member {index} takes {member.config.num_channels} channels, more than the {config.num_channels} "
                    "that the ensemble takes"
                )
        self.post_init()

    @classmethod
    def from_members(
        cls,
        members: Sequence[tuple[FerPreTrainedModel, FerImageProcessor]],
        weights: Sequence[float] | None = None,
        names: Sequence[str] | None = None,
        image_size: int | None = None,
        **config_values,
    ) -> Self:
        """An ensemble of copies of these models, each given with its image processor and perhaps a name.

        It takes pictures of ``image_size``, a member's, by default the greatest; for the others they are resized. Save
        ``shared_processor`` of the same processors and size beside it. Classes are matched by name and take the first
        member's order. ``config_values`` go into its config, such as its own ``temperature``. Raises ValueError for
        unequal classes or framing, for a size of no member, and for models of other projects.
        """
        models, processors = [model for model, _ in members], [processor for _, processor in members]
        if not members:
            raise ValueError("an ensemble needs at least one member; none was given")
        for model in models:
            if model.config.model_type not in MEMBER_CLASSES:
                raise ValueError(
                    f"a model of type {model.config.model_type!r} cannot be a member; choose from "
                    f"{', '.join(MEMBER_CLASSES)}"
                )
        processor = shared_processor(processors, image_size)
        config = FerEnsembleConfig(
            id2label=dict(models[0].config.id2label),
            image_size=processor.size_px,
            num_channels=processor.num_channels,
            image_mean=processor.image_mean,
            image_std=processor.image_std,
            members=[
                {"config": _portable_config(model), "image_mean": own.image_mean, "image_std": own.image_std}
                | ({} if names is None else {"name": names[index]})
                for index, (model, own) in enumerate(members)
            ],
            weights=weights,
            **config_values,
        )
        ensemble = cls(config)
        for member, model in zip(ensemble.members, models, strict=True):
            member.load_state_dict(model.state_dict())
        return ensemble.train(models[0].training)

    @property
    def member_names(self) -> tuple[str, ...]:
        """What the members are called: the names they were given, else ``member1`` and so on."""
        return tuple(member.get("name", f"member{index}") for index, member in enumerate(self.config.members, 1))

    @property
    def cam_layer(self) -> nn.Module:
        """That of the member that counts most, the first of equals."""
        weights = self.config.weights
        return self.members[weights.index(max(weights))].cam_layer

    def member_pixels(self, pixel_values: Tensor, index: int) -> Tensor:
        """What member ``index`` sees of the ensemble's ``pixel_values``, in its own size, channels, mean and std."""
        member, own = self.members[index].config, self.config.members[index]
        size = (member.image_size, member.image_size)
        same_values = (own["image_mean"], own["image_std"]) == (self.config.image_mean, self.config.image_std)
        if not same_values or member.num_channels != self.config.num_channels:
            pixel_values = pixel_values * _channels(self.config.image_std, pixel_values)
            pixel_values = pixel_values + _channels(self.config.image_mean, pixel_values)
            if member.num_channels < self.config.num_channels:
                pixel_values = (pixel_values * _channels(LUMA, pixel_values)).sum(1, keepdim=True)
            pixel_values = pixel_values - _channels(own["image_mean"], pixel_values)
            pixel_values = pixel_values / _channels(own["image_std"], pixel_values)
        if pixel_values.shape[-2:] != size:
            # In float32, since the antialiased kernel has no half-precision form on the CPU.
            resized = F.interpolate(pixel_values.float(), size, mode="bilinear", antialias=True)
            pixel_values = resized.to(pixel_values.dtype)
        return pixel_values

    def infer(self, pixel_values: Tensor) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        log_probabilities, hidden_states, attentions = self._ask_members(pixel_values)
        weights = torch.tensor(self.config.weights, device=pixel_values.device).view(-1, 1)
        mean = torch.logsumexp(log_probabilities + weights.log(), dim=1)
        return mean.to(hidden_states[-1].dtype), hidden_states, attentions

    def member_log_probabilities(self, pixel_values: Tensor) -> Tensor:
        """What each member answers, (B, M, K) float32: its calibrated log-probabilities in the ensemble's order."""
        self.check_input(pixel_values)
        return self._ask_members(pixel_values)[0]

    def _ask_members(self, pixel_values: Tensor) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        log_probabilities, hidden_states, attentions = [], (), ()
        for index, (member, order) in enumerate(zip(self.members, self._class_orders, strict=True)):
            raw_logits, states, maps = member.infer(self.member_pixels(pixel_values, index))
            calibrated = (raw_logits.float() / member.config.temperature).log_softmax(1)
            log_probabilities.append(calibrated[:, order])
            hidden_states += states
            attentions += maps
        return torch.stack(log_probabilities, dim=1), hidden_states, attentions

    def forget(self) -> None:
        """Drop the members' memories."""
        for member, described in zip(self.members, self.config.members, strict=True):
            member.forget()
            described["config"] |= {"memory_rows": 0}

    def _set_gradient_checkpointing(self, enable: bool = True, *args, **kwargs) -> None:
        super()._set_gradient_checkpointing(enable, *args, **kwargs)
        for member in self.members:
            member._set_gradient_checkpointing(enable, *args, **kwargs)


def _build_member(config: dict) -> FerPreTrainedModel:
    member_class = MEMBER_CLASSES.get(config.get("model_type"))
    if member_class is None:
        raise ValueError(
            f"a member of type {config.get('model_type')!r} is unknown; known are {', '.join(MEMBER_CLASSES)}"
        )
    return member_class(member_class.config_class(**config))


def _portable_config(model: FerPreTrainedModel) -> dict:
    values = model.config.to_diff_dict()
    # JSON has no whole numbers as keys, and a config should equal itself after a reload.
    values["id2label"] = {str(index): name for index, name in model.config.id2label.items()}
    return {key: value for key, value in values.items() if key not in _NOT_OF_A_MEMBER and not key.startswith("_")}


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    return like.new_tensor(values).view(1, -1, 1, 1)
