"""Feasible configurations without an Optuna trial: drawn, perturbed, and as vectors.

For samplers that propose candidates of their own. Every configuration that `draw` and `neighbour` return breaks no rule
of the space; both ask `Space.lookahead`, which remembers, so that they cost microseconds once it is warm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.domains import Categorical, Domain, Number
from search_spaces.regions import Region
from search_spaces.space import Space

REDRAWS = 16
"""Draws from a region that is not exact (a rule that compares two numbers) before the nearest tried point is taken."""


def draw(space: Space, rng: np.random.Generator) -> dict[str, Any]:
    """A configuration that keeps all rules, in the order of the file.

    Each parameter in `Space.order` is uniform, on its own scale, over the values that still lead somewhere.
    """
    drawn: dict[str, Any] = {}
    for name, region in _open(space, drawn):
        drawn[name] = settled(space, drawn, name, partial(region.uniform, rng))
    return {name: drawn[name] for name in space.parameters if name in drawn}


def neighbour(space: Space, params: Mapping[str, Any], rng: np.random.Generator, scale: float = 0.1) -> dict[str, Any]:
    """A configuration near `params` that keeps all rules.

    Numbers move by a Gaussian step of standard deviation `scale` on their unit scale; choices switch with probability
    `scale`, those that are numbers (and coarse grids) to the next one. What a rule forbids goes to the nearest value
    that leads somewhere; a parameter that `params` lacks is drawn. `scale` lies in (0, 1].
    """
    moved: dict[str, Any] = {}
    for name, region in _open(space, moved):
        domain = space.parameters[name].domain
        near = partial(_moved, domain, region, params.get(name), rng, scale)
        moved[name] = settled(space, moved, name, near if name in params else partial(region.uniform, rng))
    return {name: moved[name] for name in space.parameters if name in moved}


def coordinates(space: Space) -> tuple[str, ...]:
    """Names of `encode`'s coordinates: ``rate``, ``optimizer=AdamW`` (one-hot), ``eta?`` (1 where it exists)."""
    return tuple(coordinate for name in space.parameters for coordinate in _coordinates(space, name))


def encode(space: Space, params: Mapping[str, Any]) -> NDArray[np.float64]:
    """A configuration as a vector in [0, 1], shape (len(coordinates(space)),).

    Numbers stand on their unit scale (log where the domain is), choices that are all numbers on one coordinate, log or
    linear, whichever spaces them more evenly; other choices one-hot. What lies outside its range stands at the end. A
    conditional parameter has a flag before it, 0 where `params` lacks it; its number is then 0.5, its choices are 0.
    """
    return np.array([number for name in space.parameters for number in _encoded(space, name, params)])


def settled(space: Space, given: Mapping[str, Any], name: str, make: Callable[[], Any]) -> Any:
    """A value of `name` out of `make` with which `given` can be completed.

    `make` yields values of the region; where that is not exact (`Lookahead.is_exact`) it is asked up to `REDRAWS`
    times, and then the nearest value that was found to lead somewhere is taken.
    """
    lookahead, value = space.lookahead, make()
    if lookahead.is_exact(name):
        return value
    for _ in range(REDRAWS):
        if lookahead.obstacle({**given, name: value}) is None:
            return value
        value = make()
    return lookahead.nearest_tried(given, name, value)


def scale_of(domain: Domain) -> Number | None:
    """The scale on which a domain's values are ordered; None for choices that are not all numbers."""
    if isinstance(domain, Number):
        return domain
    assert isinstance(domain, Categorical)
    if len(domain.choices) < 2 or not all(_is_number(choice) for choice in domain.choices):
        return None
    ordered = sorted(domain.choices)
    even, even_in_log = (Number(ordered[0], ordered[-1], log=log) for log in (False, True))
    return even if ordered[0] <= 0 or _gap(even, ordered) <= _gap(even_in_log, ordered) else even_in_log


def _gap(scale: Number, ordered: Sequence[float]) -> float:
    """The widest step between neighbours."""
    return max(scale.position(right) - scale.position(left) for left, right in pairwise(ordered))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _coordinates(space: Space, name: str) -> Iterator[str]:
    parameter = space.parameters[name]
    if parameter.when is not None:
        yield f"{name}?"
    if scale_of(parameter.domain) is not None:
        yield name
    else:
        yield from (f"{name}={choice}" for choice in parameter.domain.points())


def _encoded(space: Space, name: str, params: Mapping[str, Any]) -> Iterator[float]:
    parameter, there = space.parameters[name], name in params
    if parameter.when is not None:
        yield float(there)
    scale = scale_of(parameter.domain)
    if scale is not None:
        yield scale.position(params[name]) if there else 0.5
    else:
        for choice in parameter.domain.points():
            yield float(there and Categorical((choice,)).contains(params[name]))


def _open(space: Space, drawn: Mapping[str, Any]) -> Iterator[tuple[str, Region]]:
    """The parameters that exist given what is drawn (which grows meanwhile), each with the values it may still take."""
    for name in space.order:
        if space.parameters[name].when is None or space.exists(name, space.resolve(drawn)):
            yield name, space.lookahead.region(drawn, name)


def _moved(domain: Domain, region: Region, value: Any, rng: np.random.Generator, scale: float) -> Any:
    values = region.choices
    if values is None:
        return _stepped(domain, region, value, rng, scale)
    ordered = scale_of(domain)
    switches = rng.random() < scale
    if ordered is None:
        others = [choice for choice in values if choice != value]
        return others[int(rng.integers(len(others)))] if others and (switches or value not in region) else value
    if isinstance(domain, Number) and len(domain.points()) * scale > 1:
        return _stepped(domain, region, value, rng, scale)
    distance = {choice: ordered.position(choice) - ordered.position(value) for choice in values}
    here = min(values, key=lambda choice: abs(distance[choice]))
    if not switches:
        return here
    side = 1 if rng.random() < 0.5 else -1
    beside = [choice for choice in values if (distance[choice] - distance[here]) * side > 0]
    return min(beside, key=lambda choice: abs(distance[choice])) if beside else here


def _stepped(domain: Domain, region: Region, value: Any, rng: np.random.Generator, scale: float) -> Any:
    assert isinstance(domain, Number)
    return region.nearest(domain.at(domain.position(value) + scale * float(rng.standard_normal())))
