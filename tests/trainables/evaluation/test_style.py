import colorsys

import numpy as np
import pytest

from trainables.evaluation import Style


def test_half_black_half_white_has_brightness_and_contrast_one_half():
    image = np.zeros((1, 4, 4, 3))
    image[:, :2] = 1.0
    style = Style.of(image)
    assert style.brightness == pytest.approx([0.5])
    assert style.contrast == pytest.approx([0.5])  # the population's deviation; a sample's would be 0.505
    assert style.saturation == pytest.approx([0.0])


def test_saturation_is_the_deviation_of_hsv_saturation():
    pixels = np.random.default_rng(0).random((2, 5, 7, 3))
    expected = [
        np.std([colorsys.rgb_to_hsv(*pixel)[1] for pixel in image.reshape(-1, 3)]) for image in pixels
    ]  # fmt: skip
    assert Style.of(pixels).saturation == pytest.approx(expected, abs=1e-6)


def test_each_image_is_measured_alone():
    black, white = np.zeros((1, 8, 8, 3)), np.ones((1, 8, 8, 3))
    assert Style.of(np.concatenate([black, white])).brightness == pytest.approx([0.0, 1.0])


def test_bytes_and_floats_measure_the_same():
    pixels = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    for name in ("brightness", "contrast", "saturation"):
        assert getattr(Style.of(pixels), name) == pytest.approx(getattr(Style.of(pixels / 255), name), abs=1e-6)


@pytest.mark.parametrize("images", [np.zeros((8, 8, 3)), np.zeros((1, 3, 8, 8)), np.zeros((1, 0, 8, 3))])
def test_other_shapes_are_refused(images):
    with pytest.raises(ValueError, match="must be \\(N, height, width, 3\\)"):
        Style.of(images)


def test_bytes_that_lost_their_type_are_refused():
    with pytest.raises(ValueError, match=r"0\.\.1"):
        Style.of(np.full((1, 4, 4, 3), 255.0))
