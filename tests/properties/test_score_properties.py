"""What holds for the score whatever is measured."""

import math
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trainables.evaluation import Measures, ScoreWeights, Style, Targets, find_failures, score

share = st.floats(0, 1)
cosine = st.floats(-1, 1)
measured = st.builds(Measures, share, share, share, share, share, cosine, share, cosine)
targets = st.builds(Targets, share, share, share, cosine, share)
weights = st.builds(ScoreWeights, *[st.floats(0, 10)] * 5)


@given(measured, targets, weights)
def test_never_nan_and_never_negative(measures, wanted, weight):
    result = score(measures, wanted, weight)
    assert all(math.isfinite(value) and value >= 0 for value in (result.style, result.lpips, result.clip, result.total))


@given(measured, targets, weights, share)
def test_moving_measure_and_target_together_changes_nothing(measures, wanted, weight, step):
    moved_measures = replace(measures, brightness_mean=measures.brightness_mean - step)
    moved = replace(wanted, brightness=wanted.brightness - step)
    before, after = score(measures, wanted, weight).total, score(moved_measures, moved, weight).total
    assert math.isclose(before, after, abs_tol=1e-9)


@given(measured, targets, weights, share)
def test_further_from_the_target_is_never_better(measures, wanted, weight, step):
    away = math.copysign(step, measures.lpips_diversity - wanted.diversity)
    worse = replace(measures, lpips_diversity=measures.lpips_diversity + away)
    assert score(worse, wanted, weight).total >= score(measures, wanted, weight).total


@given(measured, targets, weights, share)
def test_more_spread_more_failures_less_likeness_less_consistency_are_never_better(measures, wanted, weight, step):
    best = score(measures, wanted, weight).total
    for worse in (
        replace(measures, brightness_std=measures.brightness_std + step),
        replace(measures, contrast_std=measures.contrast_std + step),
        replace(measures, failures=measures.failures + step),
        replace(measures, clip_consistency=measures.clip_consistency - step),
        replace(measures, identity=(measures.identity or 0.0) - step),
    ):
        assert score(worse, wanted, weight).total >= best


@given(measured, targets)
def test_the_weights_are_the_spec_s(measures, wanted):
    result = score(measures, wanted, ScoreWeights())
    assert math.isclose(result.total, 0.40 * result.style + 0.30 * result.lpips + 0.30 * result.clip, abs_tol=1e-12)


images = arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.just(3)))


@given(images)
def test_measures_of_any_image_are_in_their_range(pixels):
    style = Style.of(pixels)
    assert (style.brightness >= 0).all() and (style.brightness <= 1).all()
    assert (style.contrast >= 0).all() and (style.contrast <= 0.5 + 1e-9).all()
    assert (style.saturation >= 0).all() and (style.saturation <= 0.5 + 1e-9).all()


@given(images, st.data())
def test_a_failure_does_not_depend_on_its_neighbours(pixels, data):
    row = data.draw(st.integers(0, len(pixels) - 1))
    assert find_failures(pixels)[row] == find_failures(pixels[row : row + 1])[0]
