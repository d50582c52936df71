import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fer_hf import detection
from fer_hf.detection import Detection, MTCNNDetector
from fer_hf.faces import Face, area_xyxy, iou_xyxy

# Drawn by hand, from hairline to chin and ear to ear.
ASTRONAUT_BOX = (172, 62, 270, 182)
HOPPER_BOX = (174, 128, 364, 338)


@pytest.fixture(scope="module")
def detector() -> MTCNNDetector:
    return MTCNNDetector()


def on_canvas(size: tuple[int, int], *pastes: tuple[Image.Image, tuple[int, int]]) -> Image.Image:
    canvas = Image.new("RGB", size, (96, 112, 128))
    for picture, corner in pastes:
        canvas.paste(picture, corner)
    return canvas


def moved(box, scale: float, corner: tuple[float, float]):
    return tuple(value * scale + corner[i % 2] for i, value in enumerate(box))


def assert_upright_landmarks(face: Face) -> None:
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_portraits_are_found_where_drawn_by_hand(detector, astronaut, hopper):
    for photo, box in ((astronaut, ASTRONAUT_BOX), (hopper, HOPPER_BOX)):
        found = detector.detect(photo)
        assert len(found.faces) == 1
        assert found.skipped == 0
        assert iou_xyxy(found.faces[0].box_xyxy, box) >= 0.5
        assert 0.95 <= found.faces[0].score <= 1
        assert_upright_landmarks(found.faces[0])


def test_agrees_with_the_package_it_takes_the_networks_from(detector, hopper):
    from facenet_pytorch import MTCNN

    boxes, _, landmarks = MTCNN(keep_all=True).detect(hopper, landmarks=True)
    face = detector.detect(hopper).faces[0]
    assert len(boxes) == 1
    assert iou_xyxy(face.box_xyxy, tuple(boxes[0])) > 0.85
    assert abs(np.array(face.landmarks) - landmarks[0].astype(float)).max() < 0.05 * (boxes[0][2] - boxes[0][0])


@pytest.mark.parametrize("name", ["coffee", "rocket"])
def test_pictures_without_a_face(detector, name):
    from skimage import data

    assert detector.detect(Image.fromarray(getattr(data, name)())) == Detection(())


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (15, 15), (10_000, 1), (1, 10_000), (20, 20), (12, 4000)])
def test_tiny_and_thin_images_have_no_face(detector, size):
    assert detector.detect(Image.new("RGB", size, (200, 150, 120))) == Detection(())


def test_faces_come_largest_first_and_are_capped(detector, astronaut, hopper):
    # Scales and corners; the areas of the faces descend in this order.
    layout = [
        (hopper, 1.0, (20, 10)),
        (astronaut, 1.2, (560, 0)),
        (hopper, 0.5, (40, 640)),
        (astronaut, 0.6, (600, 640)),
    ]
    canvas = on_canvas((1200, 1000), *((ImageOps.scale(photo, scale), corner) for photo, scale, corner in layout))
    boxes = [moved(HOPPER_BOX if photo is hopper else ASTRONAUT_BOX, scale, at) for photo, scale, at in layout]

    found = detector.detect(canvas)
    assert len(found.faces) == 4
    assert found.skipped == 0
    assert [area_xyxy(face.box_xyxy) for face in found.faces] == sorted(
        (area_xyxy(face.box_xyxy) for face in found.faces), reverse=True
    )
    for face, box in zip(found.faces, boxes, strict=True):
        assert iou_xyxy(face.box_xyxy, box) >= 0.5

    capped = MTCNNDetector(max_faces=3).detect(canvas)
    assert capped.skipped == 1
    assert capped.faces == found.faces[:3]


def test_a_48_megapixel_photo_gives_boxes_in_its_own_pixels(detector, hopper):
    canvas = on_canvas((8000, 6000), (ImageOps.scale(hopper, 3), (5000, 3000)))
    (face,) = detector.detect(canvas).faces
    assert iou_xyxy(face.box_xyxy, moved(HOPPER_BOX, 3, (5000, 3000))) >= 0.5
    nose_x, nose_y = face.landmarks[2]
    assert (nose_x, nose_y) == pytest.approx((5000 + 3 * 266, 3000 + 3 * 238), abs=60)  # read off the portrait


def test_a_panorama_is_searched_at_the_size_of_its_faces(detector, hopper):
    canvas = on_canvas((9000, 160), (ImageOps.contain(hopper, (160, 160)), (7000, 0)))
    (face,) = detector.detect(canvas).faces
    assert iou_xyxy(face.box_xyxy, moved(HOPPER_BOX, 160 / hopper.height, (7000, 0))) >= 0.5


def test_a_face_cut_by_the_photos_edge_is_found(detector, astronaut):
    (face,) = detector.detect(astronaut.crop((200, 90, 512, 512))).faces
    assert iou_xyxy(face.box_xyxy, moved(ASTRONAUT_BOX, 1, (-200, -90))) >= 0.5


def test_a_tight_crop_is_found(detector, hopper):
    (face,) = detector.detect(hopper.crop(HOPPER_BOX)).faces
    assert iou_xyxy(face.box_xyxy, moved(HOPPER_BOX, 1, (-174, -128))) >= 0.5


def test_another_mode_than_rgb_is_refused(detector):
    with pytest.raises(ValueError, match=r"mode 'L'.*RGB"):
        detector.detect(Image.new("L", (64, 64)))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"min_face_px": 5}, "min_face_px is 5"),
        ({"min_face_share": 1.0}, "min_face_share is 1.0"),
        ({"thresholds": (0.6, 0.7)}, "each of the three networks"),
        ({"thresholds": (0.6, 0.7, 1.2)}, "each of the three networks"),
        ({"keep_threshold": -0.1}, "one to keep a face"),
        ({"max_faces": 0}, "max_faces is 0"),
        ({"max_pixels": 0}, "max_pixels 0"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        MTCNNDetector(**setting)


def test_the_windows_of_a_noisy_photo_are_bounded(monkeypatch):
    monkeypatch.setattr(detection, "MAX_PROPOSALS", 7)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    detector = MTCNNDetector(thresholds=(0.05, 0.7, 0.8))
    seen = []
    detector._rnet.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    detector.detect(noise)
    assert seen == [7]


@pytest.mark.parametrize("side", [20.0, 40.0, 130.0, 300.0])
def test_windows_are_read_where_their_boxes_are(side):
    ramp = torch.arange(512, dtype=torch.float32).expand(1, 3, 512, 512)
    mips = [ramp]
    while mips[-1].shape[-1] > 24:
        mips.append(torch.nn.functional.avg_pool2d(mips[-1], 2))
    windows = detection._windows(mips, torch.tensor([[100.0, 50.0, 100.0 + side, 50.0 + side]]), 24)
    centres = 100 + (torch.arange(24) + 0.5) * side / 24  # pixel x has the value x at x + 0.5
    assert windows.shape == (1, 3, 24, 24)
    assert windows[0, 1, 12] == pytest.approx((centres - 0.5).numpy(), abs=1e-2)


def test_of_nested_boxes_the_better_stays():
    boxes = torch.tensor([[0.0, 0, 100, 100], [10, 10, 60, 60], [90, 90, 190, 190], [400, 0, 500, 100]])
    scores = torch.tensor([0.9, 0.99, 0.85, 0.8])
    assert detection._drop_nested(boxes, scores, 0.7) == [1, 2, 3]


def test_implausible_results_are_left_out():
    box, marks = [10.0, 10, 50, 60], [[20.0, 25], [40, 25], [30, 35], [22, 48], [38, 48]]
    far = [*marks[:4], [380.0, 48]]
    boxes = torch.tensor([box, [10, 10, 10, 60], [50, 10, 10, 60], [math.nan, 10, 50, 60], box, box])
    points = torch.tensor([marks, marks, marks, marks, far, [*marks[:4], [math.inf, 48]]])
    faces = detection._plausible(boxes, torch.full((6,), 0.9), points, 0.5)
    assert [face.box_xyxy for face in faces] == [(20, 20, 100, 120)]
    assert faces[0].landmarks[4] == (76, 96)


def test_refine_follows_a_face_that_moved_and_grew(detector, astronaut):
    before = detector.detect(on_canvas((640, 640), (astronaut, (50, 60)))).faces
    after = on_canvas((640, 640), (ImageOps.scale(astronaut, 1.08), (45, 62)))
    (face,) = detector.refine(after, before)
    (expected,) = detector.detect(after).faces
    assert iou_xyxy(face.box_xyxy, expected.box_xyxy) > 0.85
    assert_upright_landmarks(face)


def test_refine_keeps_the_place_of_a_face_that_left(detector, astronaut):
    here = detector.detect(astronaut).faces[0]
    gone = Face((350, 300, 440, 410), 1.0, None)  # on the spacesuit
    first, second, third = detector.refine(astronaut, [gone, here, gone])
    assert first is None
    assert third is None
    assert iou_xyxy(second.box_xyxy, here.box_xyxy) > 0.8


def test_refine_survives_faces_outside_the_image(detector, astronaut):
    outside = Face((-900, -900, -800, -800), 1.0, None)
    beyond = Face((5000, 5000, 5100, 5100), 1.0, None)
    assert detector.refine(astronaut, [outside]) == (None,)
    assert detector.refine(astronaut, [beyond]) == (None,)


def test_refine_of_no_faces_is_empty(detector, astronaut):
    assert detector.refine(astronaut, []) == ()
