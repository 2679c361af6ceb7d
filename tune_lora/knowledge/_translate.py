"""One past configuration in terms of another space.

A parameter is computed by the map's expression, else copied under its own name, else found from a value that this space
derives from it (an alpha gives the ratio), else its default. A result belongs to what was trained: a value that this
space does not offer is never moved into it, but for the rounding of a step. A reference is trained anew, so it may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.domains import Categorical, Domain, Number
from search_spaces.expressions import Expression, ExpressionError
from search_spaces.space import UNSET, Space

DOUBLINGS = 40
HALVINGS = 80


class CannotCarry(Exception):
    """A past configuration that this space has no place for. `reason` may be shared by many, `detail` is its own."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Translation:
    """Parameters within this space, and what was assumed or changed on the way."""

    params: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def translate(
    config: Mapping[str, Any],
    space: Space,
    *,
    expressions: Mapping[str, Expression] | None = None,
    defaults: Mapping[str, Any] | None = None,
    move: bool = False,
) -> Translation:
    """A past configuration as parameters of `space`, which break none of its rules.

    `config` holds all that is known of the trial: sampled, derived and fixed values. `expressions` compute a parameter
    from it; `defaults` are those of the space it was drawn from. With `move`, a value outside a range becomes the
    nearest one inside.

    Raises:
        CannotCarry: a value lies outside, is missing without a default, or a rule is broken.
    """
    notes: list[str] = []
    found = _given(config, space, expressions or {})
    for name in space.parameters:
        if name not in found and (solved := _solved(name, space, {**config, **found}, notes)) is not None:
            found[name] = solved
    params = _fitted(found, space, defaults or {}, move, notes)
    if broken := space.violations(space.resolve(params)):
        raise CannotCarry(f"breaks {broken[0].name}", str(broken[0]))
    notes += [
        f"{name} was {_shown(config[name])}, is {_shown(value)} here"
        for name, value in space.fixed.items()
        if name in config and config[name] != value
    ]
    return Translation({name: params[name] for name in space.parameters if name in params}, tuple(notes))


def _given(config: Mapping[str, Any], space: Space, expressions: Mapping[str, Expression]) -> dict[str, Any]:
    found = {name: config[name] for name in space.parameters if name in config}
    for name, expression in expressions.items():
        if missing := sorted(expression.names - config.keys()):
            raise CannotCarry(f"has no {missing[0]}", f"which {name} is computed from ({expression.text})")
        try:
            found[name] = expression(config)
        except ExpressionError as error:
            raise CannotCarry(f"{name} cannot be computed", str(error)) from None
    return found


def _fitted(
    found: Mapping[str, Any], space: Space, defaults: Mapping[str, Any], move: bool, notes: list[str]
) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for name in space.order:  # conditions first
        if not space.exists(name, space.resolve(params)):
            continue
        value = found.get(name, UNSET)
        if value is UNSET:
            value = defaults.get(name, space.parameters[name].default)
            if value is UNSET:
                raise CannotCarry(f"{name} is not known", f"{name} is missing and has no default")
            notes.append(f"{name} {value} by default")
        params[name] = _fit(name, value, space.parameters[name].domain, move, notes)
    return params


def _fit(name: str, value: Any, domain: Domain, move: bool, notes: list[str]) -> Any:
    value = whole(value, domain)
    if domain.contains(value):
        return domain.snap(value)
    is_inside = isinstance(domain, Number) and _is_number(value) and domain.low <= value <= domain.high
    if not is_inside and not move:
        raise CannotCarry(f"{name} outside {domain.describe()}", f"{name} is {_shown(value)}")
    nearest = _nearest(value, domain)
    if nearest is None:
        raise CannotCarry(f"{name} outside {domain.describe()}", f"{name} is {_shown(value)}, near none of them")
    notes.append(f"{name} {_shown(value)} -> {_shown(nearest)}")
    return nearest


def _nearest(value: Any, domain: Domain) -> Any:
    if not _is_number(value):
        return None
    if isinstance(domain, Number):
        return domain.snap(min(max(value, domain.low), domain.high))
    numbers = [choice for choice in domain.values() or () if _is_number(choice)]
    return min(numbers, key=lambda choice: abs(choice - value), default=None)


def whole(value: Any, domain: Domain) -> Any:
    """64.0, as tables write it, where the domain has 64."""
    if isinstance(value, float) and value.is_integer() and not domain.contains(value):
        return int(value)
    if isinstance(domain, Categorical):  # 64.0 == 64; what is kept is the choice itself
        return next((choice for choice in domain.choices if domain.contains(value) and choice == value), value)
    return value


def _solved(name: str, space: Space, known: Mapping[str, Any], notes: list[str]) -> float | None:
    """The value of a number for which something that is derived from it comes out as it was."""
    domain = space.parameters[name].domain
    if not isinstance(domain, Number):
        return None
    for derived, expression in space.derived.items():
        others = expression.names - {name}
        if name in expression.names and others <= known.keys() and _is_number(known.get(derived)):
            solution = _inverse(expression, name, domain, known, known[derived])
            if solution is not None:
                notes.append(f"{name} {_shown(solution)} from {derived} {_shown(known[derived])}")
                return solution
    return None


def _inverse(
    expression: Expression, name: str, domain: Number, known: Mapping[str, Any], target: float
) -> float | None:
    def made(value: float) -> float:
        return float(expression({**known, name: value}))

    try:
        exact = [value for value in domain.values() or () if made(value) == target]
        return exact[len(exact) // 2] if exact else _bisected(made, domain, target)
    except (ExpressionError, ValueError, TypeError):
        return None  # not a number, or not defined there: nothing simple to invert


def _bisected(made: Callable[[float], float], domain: Number, target: float) -> float | None:
    """Where a monotone function reaches `target`, inside the domain or beyond it."""
    low, high = float(domain.low), float(domain.high)
    sign = math.copysign(1.0, made(high) - made(low))
    for _ in range(DOUBLINGS):
        if sign * (made(low) - target) <= 0 <= sign * (made(high) - target):
            break
        low, high = (low / 2 if low > 0 else low * 2 - 1), (high * 2 if high > 0 else 1 - high)
    else:
        return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if sign * (made(middle) - target) >= 0 else (middle, high)
    return float(f"{high:.12g}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
