"""The grid: every feasible point once, in a seeded order, and then it says so."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from search_spaces.feasible import feasible_sampler
from search_spaces.grid import feasible_points, grid_values
from search_spaces.space import Space
from tune_lora.errors import StudyError
from tune_lora.sampling import suggestions

SMALL: dict[str, Any] = {
    "parameters": {
        "dim": {"type": "categorical", "choices": [8, 16, 32]},
        "alpha": {"type": "categorical", "choices": [8, 16, 32]},
        "robust": {"type": "categorical", "choices": [True, False]},
        "eta": {"type": "categorical", "choices": [0.1, 0.2], "when": "robust"},
    },
    "constraints": [{"name": "order", "rule": "alpha <= dim", "reason": "x"}],
}
N_SMALL = 6 * 3


def walked(space: Space, seed: int, study: optuna.Study | None = None) -> list[dict[str, Any]]:
    sampler = feasible_sampler(space, "grid", seed=seed)
    study = study or optuna.create_study(sampler=sampler)
    study.sampler = sampler
    found = []
    while not sampler.exhausted(study):
        trial = study.ask()
        found.append(space.suggest(trial))
        study.tell(trial, 0.0)
    return found


def test_each_feasible_point_is_tried_once_in_an_order_of_the_seed() -> None:
    space = Space.from_mapping(SMALL)
    first, other = walked(space, 1), walked(space, 2)
    assert len(first) == len({tuple(params.items()) for params in first}) == N_SMALL
    assert first == walked(space, 1) != other
    assert sorted(map(str, first)) == sorted(map(str, other))
    assert all(params["alpha"] <= params["dim"] and ("eta" in params) == params["robust"] for params in first)


def test_a_point_that_somebody_else_chose_is_not_tried_again() -> None:
    space = Space.from_mapping(SMALL)
    study = optuna.create_study(sampler=feasible_sampler(space, "grid"))
    chosen = {"dim": 8, "alpha": 8, "robust": False}
    study.enqueue_trial(chosen)
    trial = study.ask()
    assert space.suggest(trial) == chosen
    rest = walked(space, 0, study)
    assert chosen not in rest
    assert len(rest) == N_SMALL - 1


def test_an_exhausted_grid_says_so() -> None:
    space = Space.from_mapping(SMALL)
    study = optuna.create_study()
    walked(space, 0, study)
    with pytest.raises(StudyError, match="every point of the grid of inline has been tried"):
        study.ask()
    assert len(list(suggestions(space, 100, sampler="grid"))) == N_SMALL


def test_only_a_grid_is_ever_exhausted() -> None:
    space = Space.from_mapping({"parameters": {"a": {"type": "categorical", "choices": [1]}}})
    sampler = feasible_sampler(space, "tpe")
    study = optuna.create_study(sampler=sampler)
    space.suggest(study.ask())
    assert not sampler.exhausted(study)


def test_numbers_without_a_step_have_ten_values_and_v1_its_documented_size() -> None:
    space = Space.load("lora_v1")
    sizes = {name: len(grid_values(parameter.domain)) for name, parameter in space.parameters.items()}
    assert sizes["learning_rate"] == sizes["text_encoder_lr"] == 10
    product = 1
    for size in sizes.values():
        product *= size
    assert product == 360_000


def test_a_grid_too_large_to_list_is_walked_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space.from_mapping(SMALL)
    monkeypatch.setattr("search_spaces.grid._LISTED", 10)
    points = list(feasible_points(space, 5))
    assert len(points) == len(set(points)) == N_SMALL
