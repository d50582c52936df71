"""The image processor takes pictures of 8 bits and says in one sentence what else it was given."""

import numpy as np
import pytest
import torch
from PIL import Image

from fer_hf.models.image_processing_fer import FerImageProcessor

RAMP = np.linspace(0, 255, 48).round().astype(np.uint8)[None].repeat(48, 0)


@pytest.fixture
def processor():
    return FerImageProcessor()


def test_every_kind_of_8_bit_picture_gives_the_same_pixels(processor):
    expected = torch.from_numpy(RAMP)[None]
    grey = Image.fromarray(RAMP)
    pictures = [RAMP, RAMP[..., None].repeat(3, 2), grey, grey.convert("RGB"), grey.convert("RGBA"), grey.convert("P")]
    for picture in pictures:
        assert torch.equal(processor.to_uint8(picture), expected)
    assert processor(pictures)["pixel_values"].shape == (6, 1, 48, 48)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (RAMP.astype(np.uint16) * 257, r"an array of uint16 with shape \(48, 48\) was given; .* uint8"),
        (RAMP / 255, r"an array of float64"),
        (RAMP[None], r"an array of uint8 with shape \(1, 48, 48\)"),
        (RAMP[0], r"an array of uint8 with shape \(48,\)"),
        (torch.from_numpy(RAMP), "Tensor was given; a picture is a PIL image or a uint8 array"),
        ("face.png", "str was given"),
        (Image.fromarray(RAMP.astype(np.uint16) * 257), "mode I;16 was given, which has more than 8 bits a pixel"),
        (Image.fromarray(RAMP.astype(np.int32)), "mode I was given"),
        (Image.fromarray(RAMP.astype(np.float32)), "mode F was given"),
    ],
)
def test_what_is_no_picture_of_8_bits_is_refused(processor, picture, said):
    with pytest.raises(ValueError, match=said):
        processor([picture])


def test_a_call_gives_pictures_and_no_settings(processor):
    with pytest.raises(ValueError, match="no picture was given"):
        processor([])
    with pytest.raises(ValueError, match="size is no choice of a single call; make a FerImageProcessor with other"):
        processor(RAMP, size=96)
