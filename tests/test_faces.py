from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from fer_hf.faces import (
    Face,
    Prediction,
    align_face,
    area_xyxy,
    invert_affine,
    iou_xyxy,
    similarity_transform,
    warp,
)

TEMPLATE = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))


def apply(affine: np.ndarray, points) -> np.ndarray:
    return np.asarray(points, dtype=float) @ affine[:, :2].T + affine[:, 2]


def ramp(width: int, height: int, *, per_px: float = 1.0) -> Image.Image:
    """A picture whose pixel (column x) is per_px · x, in all three channels."""
    row = (np.arange(width) * per_px).astype(np.uint8)
    return Image.fromarray(np.repeat(np.tile(row, (height, 1))[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
        ((0, 0, 4, 4), (1, 1, 3, 3), 0.25),
        ((0, 0, 2, 2), (2, 0, 4, 2), 0.0),
        ((0, 0, 2, 2), (5, 5, 4, 4), 0.0),
        ((-3, -3, 1, 1), (-3, -3, 1, 1), 1.0),
    ],
)
def test_iou(a, b, expected):
    assert iou_xyxy(a, b) == pytest.approx(expected)
    assert iou_xyxy(b, a) == pytest.approx(expected)


def test_area_of_an_inverted_box_is_zero():
    assert area_xyxy((3, 0, 1, 5)) == 0
    assert area_xyxy((1, 2, 4, 4)) == 6


def test_similarity_transform_is_a_quarter_turn_doubled_and_shifted():
    # (x, y) -> (-2y + 10, 2x + 5), computed by hand
    affine = similarity_transform(np.array([(0, 0), (1, 0), (0, 1)]), np.array([(10, 5), (10, 7), (8, 5)]))
    assert affine == pytest.approx(np.array([[0, -2, 10], [2, 0, 5]]), abs=1e-12)


def test_similarity_transform_minimises_the_squared_error():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    best = similarity_transform(source, target)

    def error(affine):
        return ((apply(affine, source) - target) ** 2).sum()

    for _ in range(50):
        a, b, x, y = rng.normal(scale=0.05, size=4)
        nearby = best + np.array([[a, -b, x], [b, a, y]])
        assert error(nearby) >= error(best)


def test_similarity_transform_never_mirrors():
    source = np.array(TEMPLATE)
    mirrored = source * (-1, 1) + (1, 0)
    assert np.linalg.det(similarity_transform(source, mirrored)[:, :2]) > 0


def test_similarity_transform_refuses_points_that_coincide():
    with pytest.raises(ValueError, match="coincide"):
        similarity_transform(np.ones((5, 2)), np.array(TEMPLATE))


def test_invert_affine():
    affine = np.array([[2.0, -1.0, 3.0], [1.0, 2.0, -7.0]])
    points = [(0, 0), (5, -2), (100, 40)]
    assert apply(invert_affine(affine), apply(affine, points)) == pytest.approx(np.array(points, dtype=float))


@pytest.mark.parametrize(
    ("turn_deg", "scale", "shift"), [(0, 1.5, (30, 20)), (25, 3.0, (90, 40)), (-140, 4.0, (400, 550))]
)
def test_align_face_puts_landmarks_on_the_template(turn_deg, scale, shift):
    size_px = 96
    turn = np.deg2rad(turn_deg)
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    marks = np.array(TEMPLATE) * size_px @ rotation.T + shift
    centres_y, centres_x = np.mgrid[:800, :800] + 0.5
    blobs = sum(np.exp(-((centres_x - x) ** 2 + (centres_y - y) ** 2) / (2 * (1.5 * scale) ** 2)) for x, y in marks)
    photo = Image.fromarray((255 * blobs.clip(0, 1)).astype(np.uint8)).convert("RGB")
    face = Face((0, 0, 800, 800), 1.0, tuple(map(tuple, marks)))

    aligned = align_face(photo, face, template=TEMPLATE, size_px=size_px)

    assert aligned.crop.size == (size_px, size_px)
    assert apply(aligned.photo_to_crop, marks) == pytest.approx(np.array(TEMPLATE) * size_px, abs=1e-6)
    brightness = np.asarray(aligned.crop.convert("L"), dtype=float)
    rows, columns = np.mgrid[:size_px, :size_px] + 0.5
    for x, y in np.array(TEMPLATE) * size_px:
        near = brightness * (np.hypot(columns - x, rows - y) < 6)
        centroid = (columns * near).sum() / near.sum(), (rows * near).sum() / near.sum()
        assert centroid == pytest.approx((x, y), abs=0.05)


def test_align_face_without_template_takes_a_square_with_margin():
    # 20×40 around (50, 60), margin 0.5: a square of 60 from (20, 30) to (80, 90); 60 pixels to 30 halves.
    face = Face((40, 40, 60, 80), 1.0, None)
    aligned = align_face(ramp(120, 120, per_px=2), face, template=None, size_px=30, margin=0.5)
    assert aligned.photo_to_crop == pytest.approx(np.array([[0.5, 0, -10], [0, 0.5, -15]]))
    values = np.asarray(aligned.crop)[15, :, 0].astype(float)
    # Crop pixel i covers photo columns 20 + 2i and 21 + 2i of value 2x: mean 41 + 4i.
    assert values == pytest.approx(41 + 4 * np.arange(30), abs=1)


def test_align_face_without_landmarks_ignores_the_template():
    face = Face((10, 10, 30, 30), 1.0, None)
    image = ramp(60, 60)
    with_template = align_face(image, face, template=TEMPLATE, size_px=20)
    assert with_template.photo_to_crop == pytest.approx(np.array([[1.0, 0, -10], [0, 1.0, -10]]))


def test_align_face_refuses_an_empty_box():
    with pytest.raises(ValueError, match="empty"):
        align_face(ramp(20, 20), Face((5, 5, 5, 5), 1.0), template=None, size_px=20)


@pytest.mark.parametrize("shrink", [1.0, 1.7, 4.0, 9.3])
def test_warp_samples_where_the_affine_says(shrink):
    image = ramp(250, 250)
    affine = np.array([[1 / shrink, 0, -2.0], [0, 1 / shrink, -3.0]])
    size_px = int(200 / shrink) - 4
    values = np.asarray(warp(image, affine, size_px))[size_px // 2, 1:-1, 1].astype(float)
    centres = (np.arange(size_px) + 0.5 + 2.0) * shrink  # photo x of each crop pixel's centre
    assert values == pytest.approx((centres - 0.5)[1:-1], abs=1.5)


def test_warp_does_not_alias():
    # Stripes of one pixel shrunk by 7.3 must become an even grey; taking single samples would give strong moiré.
    stripes = np.zeros((400, 400, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    affine = np.array([[1 / 7.3, 0, 0], [0, 1 / 7.3, 0]])
    values = np.asarray(warp(Image.fromarray(stripes), affine, 54)).astype(float)
    assert abs(values[2:-2, 2:-2] - 127.5).max() < 25


def test_warp_agrees_with_fine_supersampling_when_turned():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).resize((300, 300), Image.BICUBIC)
    turn = np.deg2rad(20)
    affine = np.array([[np.cos(turn), -np.sin(turn), 10], [np.sin(turn), np.cos(turn), -60]]) / 4
    values = np.asarray(warp(image, affine, 48)).astype(float)
    steps = 8
    centres = (np.arange(48 * steps) + 0.5) / steps
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    x, y = np.clip(np.floor(apply(invert_affine(affine), grid)).astype(int), 0, 299).T
    fine = np.asarray(image)[y, x].reshape(48, steps, 48, steps, 3).mean(axis=(1, 3))
    assert abs(values - fine).mean() < 4


def test_warp_changes_smoothly_with_the_affine():
    # A crop pixel is 4.4 photo pixels wide, as in a portrait: its phase against the photo's pixels must not matter.
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (75, 75, 3), dtype=np.uint8)).resize((300, 300), Image.BICUBIC)
    shifts = np.linspace(0, 0.2, 9)  # crop pixels
    crops = [
        np.asarray(warp(image, np.array([[1 / 4.4, 0, shift - 8], [0, 1 / 4.4, -8]]), 48), dtype=float)
        for shift in shifts
    ]
    steps = [abs(after - before).mean() for before, after in pairwise(crops)]
    assert max(steps) < 1.5 * np.median(steps)


def test_warp_repeats_the_edge_outside_the_photo():
    image = ramp(10, 10, per_px=20)  # 0 at the left edge, 180 at the right
    values = np.asarray(warp(image, np.array([[1.0, 0, 10.0], [0, 1.0, 10.0]]), 30))
    assert (values[:, :9] == 0).all()
    assert (values[:, 21:] == 180).all()
    assert values[0, 15, 0] == values[15, 15, 0] == values[29, 15, 0]


def test_warp_far_outside_the_photo_gives_the_edge():
    values = np.asarray(warp(ramp(10, 10, per_px=20), np.array([[1.0, 0, -500.0], [0, 1.0, 0]]), 8))
    assert (values == 180).all()


def test_prediction_names_its_best_class():
    scores = {"angry": 0.2, "happy": 0.7, "sad": 0.1}
    prediction = Prediction(scores, None, align_face(ramp(9, 9), Face((0, 0, 9, 9), 1.0), template=None, size_px=9))
    assert (prediction.label, prediction.score) == ("happy", 0.7)
