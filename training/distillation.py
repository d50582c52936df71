"""Learning from a saved model beside the labels (Hinton et al., arXiv 1503.02531)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fer_hf.models.image_processing_fer import FerImageProcessor
from fer_hf.models.modeling_fer import FerPreTrainedModel
from training.precision import keep_depthwise_fp32, layout

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow converts RGB to grey


@dataclass
class DistillRecipe:
    """A saved model or ensemble to learn from beside the labels."""

    teacher: str | None = None  # a model folder or Hub id
    weight: float = 0.5  # share of the loss
    temperature: float = 2.0  # softens both sides

    def __post_init__(self):
        if not 0 <= self.weight <= 1 or self.temperature <= 0:
            raise ValueError("distill.weight must be in [0, 1] and distill.temperature above 0")


class Teacher:
    """Raw logits of a frozen model for the student's own augmented pictures, in the student's class order."""

    def __init__(self, model: FerPreTrainedModel, processor: FerImageProcessor, names: tuple[str, ...]):
        known = list(model.config.id2label.values())
        if sorted(known) != sorted(names):
            raise ValueError(f"the teacher knows {', '.join(known)}; the student learns {', '.join(names)}")
        model.forget()  # of the rows that are learned from it would remember the labels
        self.model, self.processor = model.eval().requires_grad_(False), processor
        self.order = torch.tensor([known.index(name) for name in names])

    def to(self, device: torch.device) -> "Teacher":
        """The same teacher, moved."""
        model = keep_depthwise_fp32(self.model, device)
        self.model = model.to(device, memory_format=layout(model, device))
        self.order = self.order.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 255] to raw logits (B, K)."""
        if images.shape[1] != self.processor.num_channels:
            if images.shape[1] == 3:
                images = (images * torch.tensor(_LUMA, device=images.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
            else:
                images = images.expand(-1, 3, -1, -1)
        size = (self.processor.size_px, self.processor.size_px)
        if images.shape[2:] != size:
            images = F.interpolate(images.float(), size, mode="bilinear", antialias=True, align_corners=False)
        return self.model(self.processor.normalize_uint8(images)).raw_logits[:, self.order]


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of softened student logits (B, K) to the teacher's softened ones, times T² (section 2)."""
    target = (teacher.float() / temperature).softmax(1)
    return -(target * (student.float() / temperature).log_softmax(1)).sum(1).mean() * temperature**2
