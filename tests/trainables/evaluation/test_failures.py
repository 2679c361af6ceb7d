import numpy as np
import pytest

from trainables.evaluation import Failure, Thresholds, find_failures, mostly_failed

SIZE = 32


def picture(seed=0):
    return np.random.default_rng(seed).random((1, SIZE, SIZE, 3))


def plain(value):
    return np.full((1, SIZE, SIZE, 3), float(value))


def on_white(side):
    """A dark square of `side` pixels on a white ground."""
    image = plain(1)
    image[:, :side, :side] = [0.8, 0.3, 0.1]
    return image


def test_a_picture_is_no_failure():
    assert find_failures(picture()) == (None,)


def test_one_pixel_that_is_not_finite_fails_the_image():
    for value in (np.nan, np.inf, -np.inf):
        image = picture()
        image[0, 3, 3, 1] = value
        assert find_failures(image) == (Failure.NAN,)


@pytest.mark.parametrize(
    ("value", "failure"), [(0, Failure.BLACK), (0.02, Failure.BLACK), (0.5, Failure.FLAT), (1, Failure.FLAT)]
)
def test_plain_images_fail(value, failure):
    assert find_failures(plain(value)) == (failure,)


def test_a_few_pixels_do_not_save_an_image_of_one_colour():
    assert find_failures(on_white(5)) == (Failure.SATURATED,)


def test_white_backgrounds_pass_where_the_references_have_them():
    references = np.concatenate([on_white(side) for side in (5, 6, 8)])
    limits = Thresholds.relative_to(references)
    assert set(find_failures(references, limits)) == {None}
    assert find_failures(plain(1), limits) == (Failure.FLAT,)


def test_dark_styles_pass_where_the_references_are_dark():
    night = picture() * 0.03
    assert find_failures(night) == (Failure.BLACK,)
    limits = Thresholds.relative_to(np.concatenate([night, picture(1)]))
    assert find_failures(night, limits) == (None,)
    assert find_failures(plain(0), limits) == (Failure.BLACK,)


def test_blank_references_do_not_make_blank_images_pass():
    limits = Thresholds.relative_to(plain(1))
    assert find_failures(plain(1), limits) == (Failure.FLAT,)
    assert find_failures(plain(0), Thresholds.relative_to(plain(0))) == (Failure.BLACK,)


def test_bytes_and_floats_fail_alike():
    images = np.concatenate([picture(), plain(0), plain(1), on_white(5)])
    assert find_failures((images * 255).round().astype(np.uint8)) == find_failures(images)


def test_more_than_half_is_most():
    assert not mostly_failed([True] * 4 + [False] * 4)
    assert mostly_failed([True] * 5 + [False] * 3)
    assert not mostly_failed([False])
