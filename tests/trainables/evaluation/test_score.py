import pytest

from trainables.evaluation import Measures, ScoreWeights, Targets, score
from tune_lora.errors import InputError

ON_TARGET = Measures(0.50, 0.0, 0.20, 0.0, 0.40, 0.35)


def test_on_target_scores_zero():
    assert score(ON_TARGET, Targets(), ScoreWeights()).total == pytest.approx(0)


def test_worked_example():
    measures = Measures(
        brightness_mean=0.56,
        brightness_std=0.04,
        contrast_mean=0.17,
        contrast_std=0.02,
        lpips_diversity=0.52,
        clip_consistency=0.29,
        failures=0.25,
        identity=0.80,
    )
    result = score(measures, Targets(), ScoreWeights())
    assert result.style == pytest.approx(0.06 + 0.02 + 0.03 + 0.01)
    assert result.lpips == pytest.approx(0.12)
    assert result.clip == pytest.approx(0.06)
    assert result.total == pytest.approx(0.40 * 0.12 + 0.30 * 0.12 + 0.30 * 0.06)
    asked = score(measures, Targets(), ScoreWeights.of({"identity": 0.5, "failures": 2.0}))
    assert asked.total == pytest.approx(0.102 + 0.5 * 0.20 + 2.0 * 0.25)  # the first three keep their weights


def test_consistency_above_the_target_is_no_merit():
    good = Measures(0.50, 0.0, 0.20, 0.0, 0.40, 0.90)
    assert score(good, Targets(), ScoreWeights()).total == pytest.approx(0)


def test_identity_without_references_cannot_be_asked_for():
    with pytest.raises(ValueError, match="identity"):
        score(ON_TARGET, Targets(), ScoreWeights(identity=1.0))


def test_wrong_weights_say_what_there_is():
    with pytest.raises(InputError, match="unknown weight 'identiy'; did you mean 'identity'"):
        ScoreWeights.of({"identiy": 1})
    for value in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="must be a number of 0 or more"):
            ScoreWeights.of({"clip": value})


def test_bands_of_the_users_numbers():
    bands = Targets().bands
    ends = {name: (round(band.low, 6), round(band.high, 6)) for name, band in bands.items()}
    assert ends["brightness_mean"] == (0.40, 0.60)
    assert ends["contrast_mean"] == (0.15, 0.25)
    assert ends["saturation_mean"] == (0.30, 0.50)
    assert ends["lpips_diversity"] == (0.30, 0.50)
    assert 0.36 in bands["clip_consistency"] and 0.34 not in bands["clip_consistency"]


def test_every_target_is_inside_its_own_band():
    bands = Targets(0.8, 0.3, 0.06, 0.1, 0.33).bands
    assert 0.8 in bands["brightness_mean"] and 0.3 in bands["contrast_mean"] and 0.33 in bands["saturation_mean"]
    assert 0.06 in bands["lpips_diversity"] and 0.1 in bands["clip_consistency"]
    negative = Targets(clip=-0.1).bands["clip_consistency"]
    assert -0.1 in negative
