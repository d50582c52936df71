"""A memory of training rows that answers beside the classifier: nearest neighbours in the network's own features.

The cache of kNN-LM (Khandelwal et al., arXiv 1911.00172) and Tip-Adapter (Zhang et al., arXiv 2111.03930): what the
rows that look alike were labelled, beside what the classifier says. Differs in the mixture, which adds to a count in
place of fixed shares, and in what is kept of a row: not its embedding but, after whitening on the first principal axes,
a unit vector of ``size`` bytes.
"""

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KEY_SCALE = 127  # a component of a unit vector as int8
VALUE_SCALE = 255  # a probability as uint8
_TINY = torch.finfo(torch.float32).tiny


def _equal_shares(part: Tensor) -> Tensor:
    """For each column of (N, D), what scales all of them together to a total variance of 1; 1 where none varies."""
    total = part.var(0, correction=0).sum()
    return torch.full((part.shape[1],), float(total.rsqrt()) if total > 0 else 1.0, dtype=part.dtype)


class NeighbourMemory(nn.Module):
    """(B, D) embeddings and raw logits (B, K) -> raw logits (B, K), the log of the mixed probabilities.

    The classifier's answer counts once, a remembered row ``weight`` times if it looks just the same and by
    exp(-(1 - cosine) / ``temperature``) less the more it differs: where nothing looks alike, the classifier stands.
    Holds ``rows`` keys of ``size`` components and as many label distributions.
    """

    def __init__(self, width: int, rows: int, size: int, num_labels: int, weight: float, temperature: float):
        super().__init__()
        self.weight, self.temperature = weight, temperature
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float16))
        self.register_buffer("projection", torch.zeros(width, size, dtype=torch.float16))
        self.register_buffer("keys", torch.zeros(rows, size, dtype=torch.int8))
        self.register_buffer("values", torch.zeros(rows, num_labels, dtype=torch.uint8))

    @classmethod
    def of(cls, parts: Sequence[Tensor], values: Tensor, size: int, weight: float, temperature: float) -> Self:
        """The memory of rows with these embeddings and label distributions (N, K).

        Embeddings come in ``parts`` (N, D1), (N, D2), …, each of which counts for as much variance as any other; the
        memory then compares them side by side, (B, D) with D = D1 + D2 + …

        Raises ValueError for fewer than two rows, or a ``size`` above what D and N allow.
        """
        parts = [part.double() for part in parts]
        embeddings = torch.cat(parts, dim=1)
        rows, width = embeddings.shape
        if not 1 <= size <= min(width, rows - 1):
            raise ValueError(
                f"{rows} rows of {width} numbers span at most {max(min(width, rows - 1), 0)} axes; a memory of size "
                f"{size} was asked for"
            )
        memory = cls(width, rows, size, values.shape[1], weight, temperature)
        mean = embeddings.mean(0)
        scale = torch.cat([_equal_shares(part) for part in parts])
        centred = (embeddings - mean) * scale
        variances, axes = torch.linalg.eigh(centred.T @ centred / rows)
        variances, axes = variances[-size:].flip(0), axes[:, -size:].flip(1)
        floor = variances[0] * torch.finfo(torch.float32).eps  # an axis without variance tells nothing
        memory.mean.copy_(mean)
        projection = scale[:, None] * axes / variances.clamp_min(floor).sqrt()
        memory.projection.copy_(projection / projection.abs().max())  # a cosine does not know its scale, float16 does
        memory.keys.copy_((memory.place(embeddings) * KEY_SCALE).round())
        memory.values.copy_((values * VALUE_SCALE).round())
        return memory.eval()

    def place(self, embedding: Tensor) -> Tensor:
        """(B, D) embeddings as unit vectors (B, size) float32 among the keys."""
        return F.normalize((embedding.float() - self.mean.float()) @ self.projection.float(), dim=1)

    def similarity(self, embedding: Tensor) -> Tensor:
        """Cosine similarity (B, rows) float32 to every key."""
        return self.place(embedding) @ self.keys.float().T / KEY_SCALE

    def recall(self, similarity: Tensor) -> Tensor:
        """(B, K): how much the rows of these similarities (B, rows) speak for each class, not scaled to sum 1."""
        return self.weight * ((similarity - 1) / self.temperature).exp() @ (self.values.float() / VALUE_SCALE)

    def forward(self, embedding: Tensor, raw_logits: Tensor) -> Tensor:
        counts = raw_logits.float().softmax(1) + self.recall(self.similarity(embedding))
        return (counts / counts.sum(1, keepdim=True)).clamp_min(_TINY).log().to(raw_logits.dtype)
