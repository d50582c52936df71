"""Augmentation of a whole batch on its device, with a draw of its own for every sample.

Everything random comes from the generator that is passed in, so a batch is a function of its seed. Pixels stay in
[0, 255]; the image processor normalises afterwards.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass
class AugmentOptions:
    """What is drawn for each sample; every default leaves the picture as it is.

    Ranges are half-widths around the identity unless said otherwise; probabilities are per sample.
    """

    flip: float = 0.0  # probability of a horizontal mirror
    rotation_deg: float = 0.0
    shift: float = 0.0  # fraction of the picture's side
    scale: float = 0.0  # log-uniform in [1 - scale, 1 / (1 - scale)]
    shear_deg: float = 0.0
    fill: str = "border"  # what comes in from outside: border, zeros or reflection
    brightness: float = 0.0  # factor 1 ± this
    contrast: float = 0.0  # factor 1 ± this, about the picture's mean
    gamma: float = 0.0  # exponent exp(± this)
    shading: float = 0.0  # linear light falloff across the picture, ± this at its edges
    erasing: float = 0.0  # probability of one rectangle (Zhong et al., arXiv 1708.04896)
    erasing_area: tuple[float, float] = (0.02, 0.2)
    photo: float = 0.0  # probability of each of: blur, resampling from a lower resolution, noise, JPEG
    blur_sigma: tuple[float, float] = (0.3, 1.5)  # pixels
    low_resolution: float = 0.5  # the least side, as a fraction
    noise: float = 8.0  # greatest standard deviation, of 255
    jpeg_quality: tuple[int, int] = (30, 90)
    mixup: float = 0.0  # alpha of the Beta distribution (Zhang et al., arXiv 1710.09412); 0 is off
    cutmix: float = 0.0  # alpha (Yun et al., arXiv 1905.04899); with both on, each batch takes one by a fair coin

    def __post_init__(self):
        self.erasing_area, self.blur_sigma = tuple(self.erasing_area), tuple(self.blur_sigma)
        self.jpeg_quality = tuple(self.jpeg_quality)
        if self.fill not in ("border", "zeros", "reflection"):
            raise ValueError(f"augment.fill is {self.fill!r}; choose border, zeros or reflection")
        for name in ("flip", "erasing", "photo"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name} is a probability; {getattr(self, name)} was given")
        if not 0 <= self.scale < 1:
            raise ValueError(f"augment.scale must be in [0, 1); {self.scale} was given")


def augment(images: Tensor, options: AugmentOptions, generator: Generator) -> Tensor:
    """(B, C, H, W) uint8 to float32 in [0, 255], each sample drawn by itself."""
    images = _light(_warp(images.float(), options, generator), options, generator)
    if options.photo:
        images = _camera(images, options, generator)
    if options.erasing:
        images = _erase(images, options, generator)
    return images.clamp_(0, 255)


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return torch.empty(count, device=generator.device).uniform_(low, high, generator=generator)


def _chosen(count: int, probability: float, generator: Generator) -> Tensor:
    return torch.rand(count, device=generator.device, generator=generator) < probability


def _warp(images: Tensor, o: AugmentOptions, generator: Generator) -> Tensor:
    """One affine resampling for flip, rotation, scale, shear and shift."""
    if not (o.flip or o.rotation_deg or o.shift or o.scale or o.shear_deg):
        return images
    count = len(images)
    angle = _uniform(count, -1, 1, generator) * math.radians(o.rotation_deg)
    shear = torch.tan(_uniform(count, -1, 1, generator) * math.radians(o.shear_deg))
    zoom = torch.exp(_uniform(count, -1, 1, generator) * -math.log(1 - o.scale))
    mirror = 1 - 2 * _chosen(count, o.flip, generator).float()
    # The sampling grid spans [-1, 1], so a shift of one side is 2.
    shift_x, shift_y = (_uniform(count, -2 * o.shift, 2 * o.shift, generator) for _ in range(2))
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    theta = torch.stack(
        [cos * mirror, cos * shear - sin, shift_x, sin * mirror, sin * shear + cos, shift_y], dim=1
    ).view(count, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=o.fill, align_corners=False)


def _light(images: Tensor, o: AugmentOptions, generator: Generator) -> Tensor:
    """Gamma, contrast, brightness and a linear falloff of light."""
    count, shape = len(images), (-1, 1, 1, 1)
    if o.gamma:
        exponent = torch.exp(_uniform(count, -o.gamma, o.gamma, generator)).view(shape)
        images = (images / 255).clamp(0, 1) ** exponent * 255
    if o.contrast:
        mean = images.mean((1, 2, 3), keepdim=True)
        images = (images - mean) * _uniform(count, 1 - o.contrast, 1 + o.contrast, generator).view(shape) + mean
    if o.brightness:
        images = images * _uniform(count, 1 - o.brightness, 1 + o.brightness, generator).view(shape)
    if o.shading:
        direction = _uniform(count, 0, 2 * math.pi, generator)
        strength = _uniform(count, 0, o.shading, generator)
        y, x = (torch.linspace(-1, 1, side, device=images.device) for side in images.shape[2:])
        ramp = torch.cos(direction).view(-1, 1, 1) * x + torch.sin(direction).view(-1, 1, 1) * y[:, None]
        images = images * (1 + strength.view(-1, 1, 1) * ramp)[:, None]
    return images


def _camera(images: Tensor, o: AugmentOptions, generator: Generator) -> Tensor:
    """What photographs add: blur, low resolution, noise, JPEG, each for a random part of the batch."""
    count = len(images)
    images = images.clone()
    if (who := _chosen(count, o.photo, generator)).any():
        images[who] = gaussian_blur(images[who], _uniform(int(who.sum()), *o.blur_sigma, generator))
    if (who := _chosen(count, o.photo, generator)).any():
        fraction = float(_uniform(1, o.low_resolution, 1, generator))  # one size a batch: sizes cannot mix in a tensor
        images[who] = low_resolution(images[who], fraction)
    if (who := _chosen(count, o.photo, generator)).any():
        sigma = _uniform(int(who.sum()), 0, o.noise, generator).view(-1, 1, 1, 1)
        noise = torch.empty_like(images[who]).normal_(generator=generator)
        images[who] = images[who] + sigma * noise
    if (who := _chosen(count, o.photo, generator)).any():
        images[who] = jpeg(images[who], _uniform(int(who.sum()), *o.jpeg_quality, generator))
    return images


def gaussian_blur(images: Tensor, sigma_px: Tensor) -> Tensor:
    """(B, C, H, W) blurred with a standard deviation (B,) of its own for every sample, in pixels."""
    radius = max(math.ceil(2.5 * float(sigma_px.max())), 1)
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma_px.view(-1, 1).clamp_min(1e-3)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(images.shape[1], 0)[:, None]
    planes = images.reshape(1, -1, *images.shape[2:])
    planes = F.conv2d(F.pad(planes, (0, 0, radius, radius), "replicate"), kernel[..., None], groups=len(kernel))
    planes = F.conv2d(F.pad(planes, (radius, radius, 0, 0), "replicate"), kernel[:, :, None], groups=len(kernel))
    return planes.view_as(images)


def low_resolution(images: Tensor, fraction: float) -> Tensor:
    """(B, C, H, W) shrunk to a fraction of its side and enlarged again, both bilinear."""
    small = [max(round(side * fraction), 4) for side in images.shape[2:]]
    small = F.interpolate(images, small, mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)


# Annex K of ITU-T T.81, luminance.
_JPEG_TABLE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """(B, C, H, W) after quantising 8×8 cosine coefficients as JPEG does at ``quality`` (B,) in 1 to 100.

    Every channel is treated as luminance; entropy coding is lossless and left out.
    """
    height, width = images.shape[2:]
    padded = F.pad(images, (0, -width % 8, 0, -height % 8), "replicate") - 128
    index = torch.arange(8, device=images.device, dtype=images.dtype)
    basis = torch.cos((2 * index + 1) * index[:, None] * math.pi / 16) * 0.5
    basis[0] *= math.sqrt(0.5)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50).view(-1, 1, 1, 1, 1, 1)
    table = torch.tensor(_JPEG_TABLE, device=images.device, dtype=images.dtype).view(8, 8)
    table = (table * scale).clamp_min(1)
    rows, columns = padded.shape[2] // 8, padded.shape[3] // 8
    blocks = padded.unflatten(3, (columns, 8)).unflatten(2, (rows, 8)).transpose(3, 4)
    coefficients = torch.round(basis @ blocks @ basis.T / table) * table
    blocks = (basis.T @ coefficients @ basis).transpose(3, 4)
    return (blocks.flatten(4, 5).flatten(2, 3) + 128)[:, :, :height, :width]


def _boxes(count: int, low: float, high: float, shape: torch.Size, generator: Generator) -> Tensor:
    """(count, 1, H, W) masks of rectangles that cover a share of the picture drawn in [low, high]."""
    share = _uniform(count, low, high, generator)
    aspect = torch.exp(_uniform(count, -0.8, 0.8, generator))
    half_h, half_w = torch.sqrt(share * aspect).clamp(max=1) / 2, torch.sqrt(share / aspect).clamp(max=1) / 2
    centre_y, centre_x = _uniform(count, 0, 1, generator), _uniform(count, 0, 1, generator)
    y, x = ((torch.arange(side, device=generator.device) + 0.5) / side for side in shape[2:])
    inside_y = (y - centre_y[:, None]).abs() < half_h[:, None]
    inside_x = (x - centre_x[:, None]).abs() < half_w[:, None]
    return (inside_y[:, :, None] & inside_x[:, None, :])[:, None]


def _erase(images: Tensor, o: AugmentOptions, generator: Generator) -> Tensor:
    count = len(images)
    mask = _boxes(count, *o.erasing_area, images.shape, generator)
    mask &= _chosen(count, o.erasing, generator).view(-1, 1, 1, 1)
    return torch.where(mask, _uniform(count, 0, 255, generator).view(-1, 1, 1, 1), images)


def mix(images: Tensor, targets: Tensor, options: AugmentOptions, generator: Generator) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) and distributions (B, K) mixed with a shuffled copy of the batch; one weight a batch."""
    if not (options.mixup or options.cutmix):
        return images, targets
    cut = options.cutmix > 0 and (not options.mixup or bool(_chosen(1, 0.5, generator)))
    alpha = options.cutmix if cut else options.mixup
    weight = _beta(alpha, generator)
    order = torch.randperm(len(images), device=images.device, generator=generator)
    if cut:
        mask = _boxes(1, 1 - weight, 1 - weight + 1e-6, images.shape, generator)
        images = torch.where(mask, images[order], images)
        weight = 1 - float(mask.float().mean())
    else:
        images = torch.lerp(images[order], images, weight)
    return images, torch.lerp(targets[order], targets, weight)


def _beta(alpha: float, generator: Generator) -> float:
    """One draw of Beta(alpha, alpha); torch's own takes no generator, so numpy draws, seeded as ours was.

    A batch has a generator of its own, and reading a number from it would wait for the device.
    """
    import numpy as np

    return float(np.random.default_rng(generator.initial_seed()).beta(alpha, alpha))
