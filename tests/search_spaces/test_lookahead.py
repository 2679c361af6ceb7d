"""What still leads somewhere: exact for discrete values and thresholds, found by root search between numbers."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import optuna
import pytest

from search_spaces import points
from search_spaces.domains import Int, LogUniform, Uniform
from search_spaces.expressions import parse
from search_spaces.feasible import feasible_sampler
from search_spaces.regions import Region, cells, merged
from search_spaces.space import Space
from search_spaces.thresholds import thresholds
from tune_lora.errors import InputError, InputErrors


def unit_cube(*rules: str, **changes: Any) -> Space:
    """Numbers a, b, c from 0 to 1 under rules named r0, r1, ..."""
    return Space.from_mapping(
        {
            "parameters": {name: {"type": "uniform", "low": 0, "high": 1} for name in "abc"},
            "constraints": [{"name": f"r{index}", "rule": rule, "reason": "x"} for index, rule in enumerate(rules)],
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rate > 0.1 and rate <= 0.5", {0.1, 0.5}),
        ("0.1 < rate < 0.3", {0.1, 0.3}),
        ("rate >= -0.5 or kind == 'a'", {-0.5}),
        ("rate in [1, 2]", {1, 2}),
        ("kind == 'a'", set()),
        ("rate * 2 > 1", None),
        ("rate < other", None),
        ("abs(rate) < 1", None),
    ],
)
def test_thresholds_are_the_numbers_that_a_name_is_compared_with(text: str, found: set[float] | None) -> None:
    assert thresholds(parse(text), "rate") == found


def test_cells_part_a_number_at_thresholds_without_gap_or_overlap() -> None:
    for domain, marks in ((Uniform(0.0, 1.0), [0.3, 2.0]), (Int(0, 1000), [499.5, 600]), (LogUniform(1e-4, 1), [0.1])):
        parts = cells(domain, marks)
        assert parts[0].low == domain.low
        assert parts[-1].high == domain.high
        for left, right in pairwise(parts):
            assert left.low <= left.middle <= left.high < right.low
            assert right.low - left.high <= (domain.step or 1e-12)
        assert merged(parts)[0][0] == domain.low
    assert [(part.low, part.high) for part in cells(Int(0, 1000), [499.5])[1:3]] == [(1, 499), (500, 999)]


def test_the_bounds_of_a_number_shrink_to_what_the_rules_leave() -> None:
    space = Space.load("lora_v2_1")
    slow = space.lookahead.region({"network_alpha_ratio": 0.85}, "learning_rate")
    assert slow.intervals == ((6e-5, 1e-4),)
    some = space.lookahead.region({"network_alpha_ratio": 0.5, "lr_warmup_steps": 50}, "learning_rate")
    assert some.intervals == ((6e-5, 1e-4),)
    assert space.lookahead.region({"network_alpha_ratio": 0.5}, "learning_rate").intervals == ((6e-5, 1.2e-4),)


def test_discrete_parameters_are_offered_what_still_leads_somewhere() -> None:
    region = Space.load("lora_v2_1").lookahead.region
    assert region({"network_alpha_ratio": 0.75}, "lr_warmup_steps").choices == (150, 200)
    assert region({"network_alpha_ratio": 0.75}, "optimizer_type").choices == ("AdamW",)
    assert region({"max_train_epochs": 12}, "network_dim").choices == (64, 128)
    assert region({"max_train_epochs": 12}, "network_alpha_ratio").choices == tuple(
        round(0.25 + 0.05 * index, 2) for index in range(10)
    )


def test_a_configuration_that_nothing_can_complete_names_the_rule() -> None:
    space = Space.load("lora_v2_1")
    broken = {"network_alpha_ratio": 0.9, "optimizer_type": "AdamW8bit"}
    assert space.lookahead.obstacle(broken) == "high_alpha_safety"
    with pytest.raises(InputError, match="no value of lr_warmup_steps keeps high_alpha_safety"):
        space.lookahead.region(broken, "lr_warmup_steps")


@pytest.mark.parametrize(
    "rules",
    [
        ("a < b * 0.5",),
        ("abs(a - b) < 0.001",),
        ("a + b + c >= 2.95",),
        ("abs(a * b - 0.37) < 1e-4",),
        ("abs(a + b + c - 1.234) < 1e-3", "abs(a - b) < 1e-3"),
        ("(a - 0.123) ** 2 + (b - 0.77) ** 2 < 1e-4",),
    ],
)
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_narrow_gaps_between_numbers_are_found_and_kept(rules: tuple[str, ...], sampler: str) -> None:
    space = unit_cube(*rules)
    study = optuna.create_study(sampler=feasible_sampler(space, sampler, seed=1, n_startup_trials=4))
    for _ in range(8):
        trial = study.ask()
        params = space.suggest(trial)
        assert space.violations(space.resolve(params)) == []
        study.tell(trial, params["a"])


def test_a_region_between_numbers_is_reached_to_its_ends() -> None:
    space, rng = unit_cube("a < b * 0.5"), np.random.default_rng(0)
    seen = np.array([[params["a"], params["b"]] for params in (points.draw(space, rng) for _ in range(200))])
    assert (seen[:, 0] < seen[:, 1] / 2).all()
    assert seen[:, 0].min() < 0.03
    assert seen[:, 0].max() > 0.4
    ratio = seen[:, 0] / seen[:, 1]
    assert ratio.min() < 0.05
    assert ratio.max() > 0.45


def test_rules_between_numbers_for_which_nothing_is_found_are_named_and_no_other() -> None:
    with pytest.raises(InputErrors, match=r"no configuration was found .* satisfies r0, r1, r2 together"):
        unit_cube("a > b", "b > c", "c > a", "a < 0.9")
    with pytest.raises(InputErrors, match="satisfies r1 together"):
        unit_cube("a < 0.9", "a * a + b * b < -1")


def test_thresholds_that_clash_are_named_with_certainty() -> None:
    with pytest.raises(InputErrors, match="no configuration satisfies r0, r2 together"):
        unit_cube("a > 0.5", "b < 0.5", "a < 0.2")


def test_conditions_of_parameters_are_borders_too() -> None:
    space = unit_cube(
        parameters={
            "rate": {"type": "uniform", "low": 0, "high": 1},
            "extra": {"type": "categorical", "choices": [1, 2], "when": "rate > 0.987"},
        },
        constraints=[{"name": "rare", "when": "rate > 0.1", "require": ["extra == 2"], "reason": "x"}],
    )
    # Between 0.1 and 0.987 `extra` does not exist, so what the rule requires is not met.
    (low, high), (from_, to) = space.lookahead.region({}, "rate").intervals
    assert (low, high, to) == (0, 0.1, 1)
    assert from_ == pytest.approx(0.987)
    assert space.lookahead.region({"rate": 0.99}, "extra").choices == (2,)


def test_a_share_of_a_region_walks_through_its_intervals() -> None:
    region = Region(Uniform(0.0, 1.0), None, ((0.0, 0.1), (0.7, 1.0)))
    assert [round(region.at(share), 3) for share in (0, 0.125, 0.25, 0.5, 1)] == [0, 0.05, 0.1, 0.8, 1]
    assert region.nearest(0.2) == 0.1
    assert region.nearest(0.6) == 0.7
    assert region.nearest(0.8) == 0.8
    whole = Region(Int(0, 999), None, ((0, 9), (500, 500)))
    counts = np.bincount([whole.at((index + 0.5) / 1100) for index in range(1100)], minlength=501)
    assert counts[:10].tolist() == [100] * 10
    assert counts[500] == 100


def test_rules_too_entangled_to_search_are_one_clear_line() -> None:
    names = "abcdefghij"  # ten different values are wanted of nine
    different = [f"{left} != {right}" for left, right in combinations(names, 2)]
    with pytest.raises(InputErrors, match="too entangled: 20000 combinations tried"):
        unit_cube(*different, parameters={name: {"type": "int", "low": 1, "high": 9} for name in names})
    enough = unit_cube(*different, parameters={name: {"type": "int", "low": 1, "high": 10} for name in names})
    assert sorted(points.draw(enough, np.random.default_rng(0)).values()) == list(range(1, 11))
