"""Configurations without an Optuna trial: they keep the rules, reach every value, and become vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from search_spaces import points
from search_spaces.space import Space

CONDITIONAL = {
    "parameters": {
        "robust": {"type": "categorical", "choices": [True, False]},
        "eta": {"type": "loguniform", "low": 0.001, "high": 0.1, "when": "robust"},
        "head": {"type": "categorical", "choices": ["small", "large"], "when": "robust"},
        "rate": {"type": "uniform", "low": 0.0, "high": 1.0},
    },
    "constraints": [{"name": "calm", "when": "robust", "require": ["rate <= 0.25"], "reason": "x"}],
}


def drawn(space: Space, n: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [points.draw(space, rng) for _ in range(n)]


@pytest.mark.parametrize("name", ["lora_v1", "lora_v2_1", "lora_tiny"])
def test_drawn_and_moved_configurations_are_whole_and_keep_the_rules(name: str) -> None:
    space, rng = Space.load(name), np.random.default_rng(1)
    for params in drawn(space, 200):
        for near in (params, points.neighbour(space, params, rng, 0.1), points.neighbour(space, params, rng, 1.0)):
            assert list(near) == list(space.parameters)
            assert space.within(near) == near
            assert space.violations(space.resolve(near)) == []


def test_every_choice_of_every_parameter_is_reached() -> None:
    space = Space.load("lora_v2_1")
    seen = drawn(space, 800)
    for name, parameter in space.parameters.items():
        assert {params[name] for params in seen} >= set(parameter.domain.values() or ())


def test_a_parameter_is_uniform_over_what_the_rules_leave() -> None:
    space = Space.from_mapping(
        {
            "parameters": {"rate": {"type": "loguniform", "low": 1e-4, "high": 1.0}},
            "constraints": [{"name": "gap", "rule": "rate < 1e-3 or rate >= 1e-1", "reason": "x"}],
        }
    )
    rates = np.array([params["rate"] for params in drawn(space, 2000)])
    assert not ((rates >= 1e-3) & (rates < 1e-1)).any()
    assert np.mean(rates < 1e-3) == pytest.approx(0.5, abs=0.05)
    assert np.mean(rates < 10**-3.5) == pytest.approx(0.25, abs=0.05)


def test_a_small_step_stays_near_and_a_large_one_goes_far() -> None:
    space, rng = Space.load("lora_v2_1"), np.random.default_rng(0)

    def distance(scale: float) -> float:
        moves = [(params, points.neighbour(space, params, rng, scale)) for params in drawn(space, 200)]
        return float(np.mean([np.abs(points.encode(space, a) - points.encode(space, b)).mean() for a, b in moves]))

    assert 0 < distance(0.02) < 0.5 * distance(0.2) < distance(1.0)


def test_a_neighbour_of_a_configuration_outside_the_space_is_inside() -> None:
    space, rng = Space.load("lora_v2_1"), np.random.default_rng(0)
    prior = space.priors[0].params
    near = points.neighbour(space, prior, rng, 0.01)
    assert space.within(near) == near
    assert near["learning_rate"] == pytest.approx(1.2e-4, rel=0.05)
    assert near["max_train_epochs"] in (16, 20)
    assert space.violations(space.resolve(near)) == []


def test_coordinates_name_what_encode_holds() -> None:
    space = Space.load("lora_v2_1")
    config = {**space.defaults(), "network_dim": 128, "lr_warmup_steps": 100, "learning_rate": 6e-5}
    encoded = dict(zip(points.coordinates(space), points.encode(space, config), strict=True))
    assert encoded["network_dim"] == pytest.approx(0.5)  # 64, 128, 256 double
    assert encoded["lr_warmup_steps"] == pytest.approx(1 / 3)  # 50, 100, 150, 200 add
    assert encoded["learning_rate"] == 0
    assert encoded["optimizer_type=AdamW"] == 1
    assert encoded["optimizer_type=AdamW8bit"] == 0
    assert len([name for name in encoded if name.startswith("lr_scheduler=")]) == 3


def test_parameters_that_do_not_exist_are_flagged() -> None:
    space = Space.from_mapping(CONDITIONAL)
    assert points.coordinates(space) == (
        "robust=True", "robust=False", "eta?", "eta", "head?", "head=small", "head=large", "rate",
    )  # fmt: skip
    assert points.encode(space, {"robust": False, "rate": 1.0}).tolist() == [0, 1, 0, 0.5, 0, 0, 0, 1]
    there = {"robust": True, "eta": 0.01, "head": "large", "rate": 0.25}
    assert points.encode(space, there) == pytest.approx(np.array([1, 0, 1, 0.5, 1, 0, 1, 0.25]))


def test_conditions_hold_in_what_is_drawn_and_moved() -> None:
    space, rng = Space.from_mapping(CONDITIONAL), np.random.default_rng(0)
    seen = set()
    for params in drawn(space, 100):
        near = points.neighbour(space, params, rng, 0.5)
        seen.add((params["robust"], near["robust"]))
        for config in (params, near):
            assert ("eta" in config) == ("head" in config) == config["robust"]
            assert not config["robust"] or config["rate"] <= 0.25
    assert len(seen) == 4


def test_vectors_of_outside_configurations_stay_in_the_unit_cube() -> None:
    space = Space.load("lora_v2_1")
    vector = points.encode(space, space.priors[0].params)
    assert ((vector >= 0) & (vector <= 1)).all()


def test_the_same_seed_draws_the_same() -> None:
    space = Space.load("lora_tiny")
    assert drawn(space, 10, seed=3) == drawn(Space.load("lora_tiny"), 10, seed=3)
    assert drawn(space, 10, seed=3) != drawn(space, 10, seed=4)


def test_a_space_travels_without_what_it_remembers() -> None:
    import pickle

    space = Space.load("lora_v2_1")
    first = drawn(space, 5)
    assert drawn(pickle.loads(pickle.dumps(space)), 5) == first
