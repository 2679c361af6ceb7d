"""The whole evaluation on real networks, random and miniature."""

import json
import math

import numpy as np
import pytest

from trainables.evaluation import Evaluator, Targets, resolve_targets
from trainables.tiny_sd import WEIGHTS
from tune_lora.errors import InputError

pytestmark = pytest.mark.skipif(not (WEIGHTS / "clip").is_dir(), reason="the weights of tiny-sd are not built")

ALWAYS = {
    "brightness_mean", "brightness_std", "contrast_mean", "contrast_std", "saturation_mean", "lpips_diversity",
    "clip_consistency", "failures", "style_term", "lpips_term", "clip_term", "score",
}  # fmt: skip


def pictures(count, seed=0, low=0.0, high=1.0):
    """Coloured squares on white, each another."""
    rng = np.random.default_rng(seed)
    images = np.ones((count, 64, 64, 3), np.float32)
    for image in images:
        top, left = rng.integers(0, 30, 2)
        image[top : top + 34, left : left + 34] = rng.uniform(low, high, (34, 34, 3)) * rng.uniform(0.3, 1, 3)
    return images


@pytest.fixture(scope="module")
def references():
    return pictures(6, seed=1)


@pytest.fixture(scope="module")
def captions(references):
    return ["a square"] * len(references)


@pytest.fixture(scope="module")
def evaluator(references, captions):
    return Evaluator.load(references=references, reference_captions=captions, identity_references=pictures(3, seed=2))


def test_all_measures_are_there_and_finite(evaluator):
    evaluation = evaluator.evaluate(pictures(4), ["a square"] * 4)
    assert set(evaluation.metrics) == ALWAYS | {"identity"}
    assert all(math.isfinite(value) for value in evaluation.metrics.values())
    assert evaluation.failed == [False] * 4 and not evaluation.mostly_failed


def test_failed_images_are_counted_and_left_out(evaluator):
    good, prompts = pictures(4), ["one", "two", "three", "four"]
    black = np.zeros((1, 64, 64, 3), np.float32)
    mixed = np.concatenate([black * np.nan, good, black])
    alone, together = evaluator.evaluate(good, prompts), evaluator.evaluate(mixed, ["x", *prompts, "y"])
    assert together.failed == [True, False, False, False, False, True]
    assert together.metrics.pop("failures") == pytest.approx(2 / 6)
    assert alone.metrics.pop("failures") == 0
    assert together.metrics == pytest.approx(alone.metrics, abs=1e-6)


def test_when_all_failed_the_share_is_all_that_is_said(evaluator):
    evaluation = evaluator.evaluate(np.full((3, 64, 64, 3), np.nan), ["a"] * 3)
    assert evaluation.metrics == {"failures": 1.0}
    assert evaluation.mostly_failed


def test_a_single_survivor_is_measured(evaluator):
    images = np.concatenate([pictures(1), np.zeros((1, 64, 64, 3))])
    evaluation = evaluator.evaluate(images, ["a", "b"])
    assert evaluation.metrics["lpips_diversity"] == 0 and evaluation.metrics["brightness_std"] == 0
    assert not evaluation.mostly_failed  # exactly half


def test_uncalibrated_networks_take_their_targets_from_the_references(evaluator, references, captions):
    described = evaluator.describe()
    assert described["calibrated"] is False
    assert set(described["targets_from"].values()) == {"reference"}
    assert any("uncalibrated" in note for note in described["notes"])
    assert json.loads(json.dumps(described)) == described
    own = evaluator.evaluate(references, captions).metrics
    assert own["lpips_term"] == pytest.approx(0, abs=1e-6) and own["clip_term"] == pytest.approx(0, abs=1e-6)
    spread = 0.5 * (own["brightness_std"] + own["contrast_std"])
    assert own["style_term"] == pytest.approx(spread, abs=1e-6)


def test_identity_is_higher_for_the_references_themselves_than_for_noise(references, captions):
    evaluator = Evaluator.load(references=references, reference_captions=captions, identity_references=references)
    noise = np.random.default_rng(7).random((4, 64, 64, 3))
    itself = evaluator.evaluate(references, captions).metrics["identity"]
    assert itself > evaluator.evaluate(noise, ["a square"] * 4).metrics["identity"]


def test_bytes_are_measured_as_floats_are(evaluator):
    images = (pictures(3) * 255).round().astype(np.uint8)
    as_bytes, as_floats = (evaluator.evaluate(kind, ["a"] * 3).metrics for kind in (images, images / 255))
    assert as_bytes == pytest.approx(as_floats, abs=1e-6)


def test_as_many_prompts_as_images(evaluator):
    with pytest.raises(ValueError, match="2 images and 1 prompts"):
        evaluator.evaluate(pictures(2), ["a"])


def test_a_weight_of_identity_needs_references():
    with pytest.raises(InputError, match="no reference images"):
        Evaluator.load(targets="spec", weights={"identity": 1.0})


def test_targets_by_name_by_word_and_mixed():
    measured = Targets(0.8, 0.3, 0.06, 0.1, 0.33)
    assert resolve_targets("spec", measured, calibrated=False).targets == Targets()
    assert resolve_targets("reference", measured, calibrated=True).targets == measured
    assert resolve_targets(None, measured, calibrated=True).targets == Targets()
    assert resolve_targets(None, measured, calibrated=False).targets == measured
    mixed = resolve_targets({"brightness": 0.6, "clip": "reference"}, measured, calibrated=True)
    assert mixed.targets == Targets(brightness=0.6, clip=0.1)
    assert (mixed.origin["brightness"], mixed.origin["clip"], mixed.origin["contrast"]) == (
        "given",
        "reference",
        "spec",
    )


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"brightnes": 0.5}, "unknown target 'brightnes'; did you mean 'brightness'"),
        ("referense", "must be a number, 'reference' or 'spec'"),
        ("reference", "there are no references"),
        ({"clip": 3.5}, "must be between"),
    ],
)
def test_wrong_targets_are_one_clear_line(wanted, said):
    with pytest.raises(InputError, match=said):
        resolve_targets(wanted, None, calibrated=True)


def test_real_renders_are_no_failures_and_score_near_their_own_targets(real_character):
    from trainables.lora import dataset

    images = dataset.load(real_character).train
    pixels = np.stack([dataset.pixels(image.path, 64) for image in images])
    captions = [image.caption for image in images]
    evaluator = Evaluator.load(references=pixels, reference_captions=captions, identity_references=pixels[:8])
    evaluation = evaluator.evaluate(pixels[:8], captions[:8])
    assert not any(evaluation.failed)
    noise = np.random.default_rng(0).random((8, 64, 64, 3))
    assert evaluation.metrics["score"] < evaluator.evaluate(noise, captions[:8]).metrics["score"]


def test_several_sets_measure_together_what_each_does_by_itself(evaluator):
    prompts = ["one square", "a square", "one square"]
    mixed = pictures(3, seed=6)
    mixed[1] = np.nan
    sets = [pictures(3, seed=4), mixed, np.zeros((3, 64, 64, 3), np.float32), pictures(3, seed=5, low=0.4)]
    for ours, images in zip(evaluator.evaluate_each(sets, prompts), sets, strict=True):
        theirs = evaluator.evaluate(images, prompts)
        assert ours.reasons == theirs.reasons and list(ours.metrics) == list(theirs.metrics)
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-4, abs=1e-6)


def test_nothing_but_failures_in_every_set_is_no_error(evaluator):
    black = np.zeros((2, 64, 64, 3), np.float32)
    assert [one.metrics for one in evaluator.evaluate_each([black, black], ["a", "b"])] == [{"failures": 1.0}] * 2
    with pytest.raises(ValueError, match="got 2 images and 1 prompts"):
        evaluator.evaluate_each([black[:1], black], ["a"])
