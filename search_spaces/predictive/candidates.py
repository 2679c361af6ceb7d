"""Where a sampler looks: configurations that keep a space's rules, at random and near good ones, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces import points
from search_spaces.domains import Categorical, Domain, Number
from search_spaces.space import Space

Array = NDArray[np.float64]
Params = Mapping[str, Any]

EVERYWHERE, BY_CONSTRUCTION, NEAR, BEST, OFFSPRING = 1000, 50, 150, 10, 20
STEPS = (0.02, 0.07, 0.2)
"""Around good configurations, in unit coordinates; then `FINER` ones around the best candidates."""
FINER = (0.1, 0.05, 0.02)
MOVED = 0.4
"""Share of the parameters that a step changes."""


class Cube:
    """A space's configurations as rows in the unit cube, a column a parameter, whether they keep the rules or not."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._columns = [_Column(parameter.domain) for parameter in space.parameters.values()]
        self._conditional = any(parameter.when is not None for parameter in space.parameters.values())

    def random(self, n: int, rng: np.random.Generator) -> Array:
        """Rows everywhere in the cube, shape (n, parameters)."""
        return rng.random((n, len(self._columns)))

    def rows(self, configurations: Sequence[Params]) -> Array:
        """The rows of configurations; a parameter that one lacks stands in the middle."""
        found = [
            [column.row(params[name]) if name in params else 0.5 for name, column in self._named()]
            for params in configurations
        ]
        return np.array(found, dtype=float).reshape(len(configurations), len(self._columns))

    def near(self, rows: Array, step: float, rng: np.random.Generator) -> Array:
        """Each row, changed in some of its columns."""
        moves = rng.random(rows.shape) < MOVED
        moved = np.clip(rows + moves * step * rng.standard_normal(rows.shape), 0, 1)
        anywhere = rng.random(rows.shape)
        for index, column in enumerate(self._columns):
            if not column.is_ordered:  # no choice is nearer than another
                switch = moves[:, index] & (rng.random(len(rows)) < 2 * step)
                moved[:, index] = np.where(switch, anywhere[:, index], rows[:, index])
        return moved

    def params(self, row: Array) -> dict[str, Any]:
        """The configuration of a row."""
        values = {name: column.value(float(place)) for (name, column), place in zip(self._named(), row, strict=True)}
        if not self._conditional:
            return values
        present: dict[str, Any] = {}
        for name in self.space.order:
            if self.space.exists(name, self.space.resolve(present)):
                present[name] = values[name]
        return {name: present[name] for name in values if name in present}

    def vectors(self, rows: Array) -> Array:
        """What `points.encode` makes of the rows' configurations, shape (n, d)."""
        if self._conditional:
            return np.array([points.encode(self.space, self.params(row)) for row in rows])
        return np.hstack([column.encoded(rows[:, index]) for index, column in enumerate(self._columns)])

    def keeps_the_rules(self, row: Array) -> bool:
        """Whether a row's configuration may be trained."""
        return not self.space.violations(self.space.resolve(self.params(row)))

    def _named(self) -> Iterator[tuple[str, _Column]]:
        return zip(self.space.parameters, self._columns, strict=True)


class _Column:
    """One parameter in the unit interval."""

    def __init__(self, domain: Domain) -> None:
        self._scale = points.scale_of(domain)
        self._choices = None if isinstance(domain, Number) else list(domain.points())
        if self._choices is not None and self._scale is not None:
            self._choices.sort()
        self.is_ordered = self._scale is not None

    def row(self, value: Any) -> float:
        if self._choices is None:
            assert self._scale is not None
            return self._scale.position(value)
        same = [index for index, choice in enumerate(self._choices) if Categorical((choice,)).contains(value)]
        return (same[0] + 0.5) / len(self._choices) if same else 0.5

    def value(self, place: float) -> Any:
        if self._choices is None:
            assert self._scale is not None
            return self._scale.at(place)
        return self._choices[int(self._index(np.array([place]))[0])]

    def encoded(self, places: Array) -> Array:
        if self._choices is None:
            assert self._scale is not None
            return _snapped(self._scale, places)[:, None]
        index = self._index(places)
        if self._scale is None:
            return np.eye(len(self._choices))[index]
        return np.array([self._scale.position(choice) for choice in self._choices])[index][:, None]

    def _index(self, places: Array) -> NDArray[np.intp]:
        assert self._choices is not None
        return np.minimum((places * len(self._choices)).astype(np.intp), len(self._choices) - 1)


def _snapped(scale: Number, places: Array) -> Array:
    """Positions of the contained values nearest to positions."""
    if scale.step is None or scale.low == scale.high:
        return places if scale.low < scale.high else np.full_like(places, 0.5)
    low, high = scale.low, scale.high
    values = low * (high / low) ** places if scale.log else low + (high - low) * places
    on_grid = np.clip(low + scale.step * np.round((values - low) / scale.step), low, high)
    return np.asarray(np.log(on_grid / low) / np.log(high / low) if scale.log else (on_grid - low) / (high - low))


def best_candidate(
    cube: Cube, value: Callable[[Array], Array], good: Sequence[Params], rng: np.random.Generator
) -> dict[str, Any]:
    """The configuration that keeps the rules and has the highest `value` that was found.

    `value` maps rows of the cube, shape (n, parameters), to numbers, shape (n,). `good` are configurations to look
    near. Rules are asked about the best candidates only, best first: they cost more than a value.
    """
    drawn = [points.draw(cube.space, rng) for _ in range(BY_CONSTRUCTION)]
    near = cube.rows(good)
    around = [cube.near(near[rng.integers(len(near), size=NEAR)], step, rng) for step in STEPS] if len(near) else []
    rows = np.vstack([cube.rows(drawn), cube.random(EVERYWHERE, rng), *around])
    values = value(rows)
    for step in FINER:
        best = _best(cube, rows, values, BEST)
        offspring = cube.near(np.repeat(rows[best], OFFSPRING, axis=0), step, rng)
        rows, values = np.vstack([rows[best], offspring]), np.append(values[best], value(offspring))
    return cube.params(rows[_best(cube, rows, values, 1)[0]])


def spread_out(cube: Cube, taken: Sequence[Params], rng: np.random.Generator) -> dict[str, Any]:
    """Of some configurations that keep the rules, the one farthest from all that are taken."""
    drawn = [points.draw(cube.space, rng) for _ in range(BY_CONSTRUCTION)]
    if not taken:
        return drawn[0]
    apart = cube.vectors(cube.rows(drawn))[:, None, :] - cube.vectors(cube.rows(taken))[None, :, :]
    return drawn[int((apart**2).sum(axis=-1).min(axis=1).argmax())]


def _best(cube: Cube, rows: Array, values: Array, n: int) -> list[int]:
    """The `n` best rows that keep the rules, best first."""
    order = (int(index) for index in np.argsort(-values, kind="stable"))
    return list(islice((index for index in order if cube.keeps_the_rules(rows[index])), n))
