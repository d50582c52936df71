"""Pictures of results: what is drawn where, and what stays untouched."""

import numpy as np
import pytest
from PIL import Image

from fer_hf.faces import AlignedFace, Face, Prediction
from fer_hf.rendering import (
    ACCENT_RGB,
    TRACK_RGB,
    colour_heat,
    draw_bars,
    draw_faces,
    draw_gates,
    heat_image,
    overlay_heat,
    percent,
)


def prediction(box, score=0.9):
    crop = AlignedFace(Image.new("RGB", (48, 48)), np.eye(2, 3))
    return Prediction({"happy": score, "sad": 1 - score}, None if box is None else Face(box, 0.99), crop)


def count_colour(image, rgb):
    return int((np.asarray(image) == np.array(rgb)).all(axis=-1).sum())


def test_no_faces_leave_the_photo_as_it_was():
    photo = Image.new("RGB", (60, 40), (9, 8, 7))
    drawn = draw_faces(photo, [prediction(None)])
    assert drawn is not photo
    assert np.array_equal(np.asarray(drawn), np.asarray(photo))


def test_box_and_label_stand_at_the_face_and_the_photo_is_not_changed():
    photo = Image.new("RGB", (400, 300), (9, 8, 7))
    drawn = np.asarray(draw_faces(photo, [prediction((100, 100, 200, 220))]))
    assert tuple(drawn[160, 101]) == ACCENT_RGB  # left edge
    assert tuple(drawn[160, 150]) == (9, 8, 7)  # inside
    assert count_colour(drawn[80:100, 100:200], ACCENT_RGB) > 200  # label above
    assert count_colour(photo, ACCENT_RGB) == 0


@pytest.mark.parametrize("box", [(-20, -30, 60, 50), (350, 250, 460, 390), (0, 0, 400, 300), (10, 10, 11.5, 11.5)])
def test_boxes_that_reach_past_the_photo_or_are_tiny_are_drawn(box):
    assert count_colour(draw_faces(Image.new("RGB", (400, 300)), [prediction(box)]), ACCENT_RGB) > 20


def test_bars_are_as_long_as_their_probabilities():
    bars = np.asarray(draw_bars({"happy": 0.8, "sad": 0.2}, width_px=400, row_px=20))
    assert bars.shape == (40, 400, 3)
    accent = (bars[10] == ACCENT_RGB).all(axis=-1).sum()
    tint = (bars[30] == np.add(ACCENT_RGB, TRACK_RGB) // 2).all(axis=-1).sum()
    assert accent / tint == pytest.approx(4, rel=0.05)


def test_heat_runs_from_dark_to_light_and_clips():
    colours = colour_heat(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])).astype(int)
    assert colours[0].tolist() == colours[1].tolist() == [0, 0, 4]
    assert colours[3].tolist() == colours[4].tolist() == [252, 255, 164]
    assert colours[1].sum() < colours[2].sum() < colours[3].sum()


def test_heat_image_is_transparent_where_the_map_is_zero():
    heat = np.zeros((6, 6))
    heat[3:, :] = 1
    picture = np.asarray(heat_image(heat, 60))
    assert picture.shape == (60, 60, 4)
    assert picture[5, 30, 3] == 0
    assert picture[55, 30, 3] == 255


def test_overlay_changes_only_where_the_map_is_hot():
    crop = Image.new("RGB", (40, 40), (100, 110, 120))
    heat = np.zeros((4, 4))
    heat[:, 3] = 1
    drawn = np.asarray(overlay_heat(crop, heat, opacity=1.0))
    assert drawn[20, 3].tolist() == [100, 110, 120]
    assert drawn[20, 39].tolist() == [252, 255, 164]
    assert np.array_equal(np.asarray(overlay_heat(crop, heat, opacity=0.0)), np.asarray(crop))


def test_wrong_shapes_and_opacity_are_refused_with_the_rule():
    with pytest.raises(ValueError, match="opacity is 2"):
        overlay_heat(Image.new("RGB", (4, 4)), np.zeros((2, 2)), opacity=2)
    with pytest.raises(ValueError, match=r"\(h, w\)"):
        heat_image(np.zeros(3), 10)
    with pytest.raises(ValueError, match=r"\(C,\)"):
        draw_gates(np.zeros((2, 2)))


def test_gates_keep_their_order():
    strip = np.asarray(draw_gates(np.array([0.0, 1.0]), width_px=10, height_px=4))
    assert strip[0, 0].tolist() == [0, 0, 4]
    assert strip[3, 9].tolist() == [252, 255, 164]


def test_percent_never_claims_certainty():
    texts = [percent(value) for value in (0.0, 0.004, 0.5, 0.995, 1.0)]
    assert texts == ["<1%", "<1%", "50%", ">99%", ">99%"]
