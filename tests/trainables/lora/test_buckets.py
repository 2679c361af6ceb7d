"""Aspect buckets keep their promises for every resolution and every image; so do crops and what SDXL is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.lora.buckets import Buckets, crop_box, time_ids

SIDES = st.integers(2, 24).map(lambda count: count * 64)
SIZES = st.tuples(st.integers(1, 4000), st.integers(1, 4000))
STEPS = st.sampled_from([8, 16, 32, 64])


@st.composite
def buckets(draw, *, no_upscale=False):
    resolution = (draw(SIDES), draw(SIDES))
    shorter, longer = sorted(resolution)
    least, most = draw(st.integers(16, shorter)), draw(st.integers(longer, 4 * longer))
    return Buckets(resolution, least // 8 * 8, most // 8 * 8, draw(STEPS), no_upscale)


@given(buckets())
def test_sides_are_multiples_of_the_step_within_the_limits_and_areas_within_the_resolution_s(found):
    sizes = found.sizes()
    assert sizes
    square = (int(found.area**0.5) // found.step * found.step,) * 2
    for width, height in sizes:
        assert width % found.step == 0 and height % found.step == 0
        assert width * height <= found.area
        assert (width, height) == square or (found.least <= min(width, height) and max(width, height) <= found.most)


@given(buckets())
def test_every_bucket_is_there_in_both_orientations(found):
    assert {(height, width) for width, height in found.sizes()} == set(found.sizes())


@given(buckets())
def test_a_bucket_is_as_long_as_area_and_limit_allow_on_one_side_at_least(found):
    for width, height in (size for size in found.sizes() if size[0] != size[1]):
        grown = [(width + found.step, height), (width, height + found.step)]
        assert any(w * h > found.area or max(w, h) > found.most for w, h in grown)


@given(buckets(), SIZES)
def test_an_image_goes_to_the_bucket_of_the_nearest_aspect_ratio(found, size):
    width, height = found.choose(size)
    aspect = size[0] / size[1]
    assert (width, height) in found.sizes()
    assert abs(width / height - aspect) == min(abs(w / h - aspect) for w, h in found.sizes())


@given(buckets(no_upscale=True), SIZES)
def test_without_upscaling_no_bucket_is_larger_than_its_image(found, size):
    width, height = found.choose(size)
    assert width % found.step == 0 and height % found.step == 0
    assert width <= max(size[0], found.step) and height <= max(size[1], found.step)
    if size[0] * size[1] <= found.area:  # it keeps its size, cut to the steps
        assert width > size[0] - found.step and height > size[1] - found.step
    elif min(width, height) > found.step:
        assert width * height <= found.area


@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 512), (512, 512)), ((1000, 1000), (512, 512)), ((1024, 512), (704, 320)), ((500, 750), (384, 640)),
     ((4000, 100), (1024, 256)), ((100, 4000), (256, 1024))],
)  # fmt: skip
def test_buckets_at_512_pixels(size, expected):
    """Ratios by hand: 2.0 lies between 704x320 (2.2) and 640x384 (1.67); 2:3 between 384x640 (0.6) and 448x576."""
    assert Buckets((512, 512)).choose(size) == expected


@given(SIZES, st.tuples(SIDES, SIDES))
def test_a_crop_is_centred_inside_the_image_and_has_the_target_s_shape(size, target):
    left, top, right, bottom = crop_box(size, target)
    assert 0 <= left <= right <= size[0] + 1e-6 and 0 <= top <= bottom <= size[1] + 1e-6
    assert left + right == pytest.approx(size[0]) and top + bottom == pytest.approx(size[1])
    assert (right - left) / (bottom - top) == pytest.approx(target[0] / target[1], rel=1e-6)
    assert right - left == pytest.approx(size[0]) or bottom - top == pytest.approx(size[1])


@pytest.mark.parametrize(
    ("size", "target", "mirrored", "expected"),
    [
        ((1024, 1024), (1024, 1024), False, (1024, 1024, 0, 0, 1024, 1024)),
        ((2000, 1000), (512, 512), False, (1000, 2000, 0, 256, 512, 512)),
        ((2000, 1000), (512, 512), True, (1000, 2000, 0, 256, 512, 512)),
        ((1000, 3000), (512, 1024), False, (3000, 1000, 256, 0, 1024, 512)),
        ((513, 512), (512, 512), True, (512, 513, 0, 1, 512, 512)),
    ],
)
def test_what_sdxl_is_told_of_a_crop(size, target, mirrored, expected):
    """Original height and width, the crop's top and left in the resized image, shown height and width."""
    assert time_ids(size, target, mirrored=mirrored) == expected
