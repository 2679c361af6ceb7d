"""Every feasible point of a grid, each once, in a seeded order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from search_spaces.domains import Domain, Number
from search_spaces.space import Space
from search_spaces.thinning import Follower
from tune_lora.errors import StudyError

POINTS = 10
"""Values of a number that has neither a step nor few values: evenly spaced on its own scale, ends included."""

_LISTED = 4_000_000
_Point = tuple[tuple[str, tuple[bool, Any]], ...]


class GridOfSpace(BaseSampler):
    """Optuna's grid search over the points of a space that break no rule.

    A point is tried once, whoever chose it; the order is shuffled by `seed`. Nothing is listed beforehand, so large
    grids cost nothing until they are walked.
    """

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._space, self._seed = space, seed
        self._walk = feasible_points(space, seed)
        self._ahead: _Point | None = None
        self._follower, self._tried = Follower(), set[_Point]()
        self._taken: dict[int, dict[str, Any]] = {}

    def exhausted(self, study: Study) -> bool:
        """Whether every point of the grid is among the study's trials, running ones included."""
        return self._next(study) is None

    # ruff: noqa: ARG002 - the arguments are Optuna's

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Takes the next point.

        Raises:
            StudyError: there is none left; ask `exhausted` before a trial is begun.
        """
        if "fixed_params" in trial.system_attrs:
            return
        point = self._next(study)
        if point is None:
            raise StudyError(f"sampler: every point of the grid of {self._space.name} has been tried")
        self._taken[trial.number] = {name: value for name, (_, value) in point}
        self._tried.add(point)
        self._ahead = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None: a point is given out value by value."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """None, as above."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The point's value; the range's first for a trial that somebody else chose in part."""
        first = grid_values(self._space.parameters[param_name].domain)[0]
        return self._taken.get(trial.number, {}).get(param_name, first)

    def _next(self, study: Study) -> _Point | None:
        news = self._follower.look(study)
        self._tried.update(_point(trial.params) for trial in news.finished)
        running = {_point(trial.params) for trial in news.running}
        while self._ahead is None or self._ahead in self._tried or self._ahead in running:
            self._ahead = next(self._walk, None)
            if self._ahead is None:
                return None
        return self._ahead


def grid_values(domain: Domain) -> tuple[Any, ...]:
    """The values of a parameter that the grid has."""
    values = domain.values()
    if values is not None:
        return values
    assert isinstance(domain, Number)  # choices are few
    return tuple(dict.fromkeys(domain.at(index / (POINTS - 1)) for index in range(POINTS)))


def feasible_points(space: Space, seed: int) -> Iterator[_Point]:
    """The points of the grid that break no rule, each once, shuffled."""
    axes = {name: grid_values(space.parameters[name].domain) for name in space.order}
    for number in _shuffled(math.prod(len(axis) for axis in axes.values()), seed):
        params = _params_at(space, axes, number)
        if params is not None and space.lookahead.obstacle(params) is None:
            yield _point(params)


def _params_at(space: Space, axes: Mapping[str, tuple[Any, ...]], number: int) -> dict[str, Any] | None:
    """The configuration of a number in mixed radix; None where a parameter that does not exist is not at its first
    value, so that each configuration has one number.
    """
    params: dict[str, Any] = {}
    for name, axis in axes.items():
        number, index = divmod(number, len(axis))
        if space.parameters[name].when is None or space.exists(name, space.resolve(params)):
            params[name] = axis[index]
        elif index:
            return None
    return params


def _shuffled(total: int, seed: int) -> Iterator[int]:
    """0 to total - 1, each once."""
    rng = np.random.default_rng(seed)
    if total <= _LISTED:
        yield from (int(number) for number in rng.permutation(total))
        return
    # Steps of a size without a common divisor come round to every number, and nothing has to be listed.
    step = int(rng.integers(total // 4, total // 2))
    while math.gcd(step, total) > 1:
        step += 1
    place = int(rng.integers(total))
    for _ in range(total):
        yield place
        place = (place + step) % total


def _point(params: Mapping[str, Any]) -> _Point:
    # Booleans are told from numbers: 1 == True in Python.
    return tuple(sorted((name, (type(value) is bool, value)) for name, value in params.items()))
