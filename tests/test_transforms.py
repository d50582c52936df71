"""Batched augmentation: each operation against values known by construction, and a draw of its own for each sample."""

import numpy as np
import pytest
import torch
from PIL import Image

from fer_hf.data.transforms import AugmentOptions, augment, gaussian_blur, jpeg, low_resolution, mix


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch() -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    picture = 128 + 60 * torch.sin(x / 7) + 40 * torch.cos(y / 5)
    return picture.to(torch.uint8).expand(32, 1, 48, 48).clone()


def test_defaults_change_nothing(batch):
    assert torch.equal(augment(batch, AugmentOptions(), seeded()), batch.float())


def test_a_certain_flip_mirrors(batch):
    flipped = augment(batch, AugmentOptions(flip=1.0), seeded())
    torch.testing.assert_close(flipped, batch.flip(3).float(), atol=0.01, rtol=0)


def test_half_of_a_batch_is_flipped_sample_by_sample(batch):
    out = augment(batch, AugmentOptions(flip=0.5), seeded())
    flipped = [bool((row - batch[0].flip(2)).abs().max() < 0.01) for row in out]
    kept = [bool((row - batch[0]).abs().max() < 0.01) for row in out]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 8 <= sum(flipped) <= 24


def test_the_same_seed_draws_the_same(batch):
    options = AugmentOptions(
        flip=0.5, rotation_deg=15, shift=0.1, scale=0.2, shear_deg=5, brightness=0.2, contrast=0.2, gamma=0.2,
        shading=0.2, erasing=0.5, photo=0.5,
    )  # fmt: skip
    first, again = (augment(batch, options, seeded(7)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(batch, options, seeded(8)))
    assert len({row.numpy().tobytes() for row in first}) == len(batch)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 255


def test_rotation_turns_by_at_most_the_angle_asked_for():
    picture = torch.zeros(64, 1, 49, 49, dtype=torch.uint8)
    picture[:, :, 22:27, 40:45] = 255  # a mark at angle 0
    out = augment(picture, AugmentOptions(rotation_deg=30), seeded())
    centre = torch.arange(49.0) - 24
    mass = out.sum((1, 2, 3))
    angles = torch.rad2deg(
        torch.atan2((out.sum(3) * centre).sum((1, 2)) / mass, (out.sum(2) * centre).sum((1, 2)) / mass)
    )
    assert float(angles.abs().max()) <= 30.5
    assert float(angles.max()) > 20
    assert float(angles.min()) < -20


def test_shift_moves_by_at_most_its_share_of_the_side():
    picture = torch.zeros(64, 1, 48, 48, dtype=torch.uint8)
    picture[:, :, 22:26, 22:26] = 255
    out = augment(picture, AugmentOptions(shift=0.25, fill="zeros"), seeded())
    at = (out.sum((1, 2)) * torch.arange(48.0)).sum(1) / out.sum((1, 2, 3))
    assert 8 < float((at - 23.5).abs().max()) <= 12.01


def test_brightness_scales_and_contrast_keeps_the_mean(batch):
    bright = augment(batch, AugmentOptions(brightness=0.3), seeded()) / batch
    factors = bright.flatten(1).median(1).values
    assert 0.69 < float(factors.min()) < 0.8
    assert 1.2 < float(factors.max()) < 1.31
    contrast = augment(batch, AugmentOptions(contrast=0.3), seeded())
    torch.testing.assert_close(contrast.mean((1, 2, 3)), batch.float().mean((1, 2, 3)), atol=0.5, rtol=0)


def test_erasing_covers_a_share_within_its_range(batch):
    out = augment(batch, AugmentOptions(erasing=1.0, erasing_area=(0.1, 0.2)), seeded())
    share = (out != batch).float().mean((1, 2, 3))
    assert float(share.max()) <= 0.22
    assert float(share.mean()) > 0.06  # rectangles may reach past the edge


def test_blur_keeps_the_mean_and_follows_each_samples_own_width():
    point = torch.zeros(2, 1, 31, 31)
    point[:, :, 15, 15] = 1000.0
    out = gaussian_blur(point, torch.tensor([0.5, 2.0]))
    assert out.sum((1, 2, 3)).tolist() == pytest.approx([1000, 1000], rel=1e-4)
    offset = torch.arange(31.0) - 15
    spread = ((out[:, 0].sum(1) * offset**2).sum(1) / 1000).sqrt()
    assert spread.tolist() == pytest.approx([0.5, 2.0], rel=0.08)


def test_low_resolution_loses_detail_and_keeps_flat_areas():
    stripes = torch.tensor([0.0, 255.0]).repeat(24).expand(1, 1, 48, 48)
    assert float(low_resolution(stripes, 0.5)[..., 8:40].std()) < 10
    flat = torch.full((1, 1, 48, 48), 90.0)
    torch.testing.assert_close(low_resolution(flat, 0.4), flat)


def test_jpeg_is_as_far_from_the_original_as_pillows():
    import io

    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 255, (6, 6), dtype=np.uint8)).resize((48, 48), Image.Resampling.BICUBIC)
    original = torch.from_numpy(np.array(pixels))[None, None].float()
    for quality in (30, 80):
        buffer = io.BytesIO()
        pixels.save(buffer, "JPEG", quality=quality)
        pillow = torch.from_numpy(np.array(Image.open(buffer)))[None, None].float()
        ours = jpeg(original, torch.tensor([float(quality)]))
        lost, lost_by_pillow = (float((coded - original).abs().mean()) for coded in (ours, pillow))
        assert lost == pytest.approx(lost_by_pillow, rel=0.1)
        assert float((ours - pillow).abs().mean()) < 0.7 * lost_by_pillow  # the same places, not just as much
    odd = torch.rand(1, 3, 45, 50) * 255
    assert jpeg(odd, torch.tensor([90.0])).shape == odd.shape


def test_mixup_blends_pictures_and_targets_with_one_weight(batch):
    images = torch.arange(32.0).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    targets = torch.eye(32)
    mixed, mixed_targets = mix(images, targets, AugmentOptions(mixup=1.0), seeded())
    assert torch.allclose(mixed_targets.sum(1), torch.ones(32))
    torch.testing.assert_close(mixed[:, 0, 0, 0], mixed_targets @ torch.arange(32.0))
    weight = float(mixed_targets[0, 0])
    assert 0 < weight < 1
    assert ((mixed_targets.diagonal() - weight).abs() < 1e-6).sum() > 28  # but where a row was mixed with itself


def test_cutmix_weighs_targets_by_area():
    images = torch.arange(16.0).view(-1, 1, 1, 1).expand(-1, 1, 40, 40).clone()
    mixed, targets = mix(images, torch.eye(16), AugmentOptions(cutmix=1.0), seeded(3))
    torch.testing.assert_close(mixed.mean((1, 2, 3)), targets @ torch.arange(16.0), atol=1e-3, rtol=1e-4)
    assert set(mixed[1].unique().tolist()) <= {float(i) for i in range(16)}


@pytest.mark.parametrize(("name", "value"), [("fill", "mirror"), ("flip", 1.5), ("scale", 1.0)])
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"augment.{name}"):
        AugmentOptions(**{name: value})
