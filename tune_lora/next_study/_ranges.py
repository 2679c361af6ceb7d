"""Arithmetic of ranges: wider, narrower, and in numbers that a person would have written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from search_spaces.domains import Int, Number
from tune_lora.analysis import is_number

End = Literal["low", "high"]
ENDS: tuple[End, ...] = ("low", "high")

BY = 0.5
"""By how much of its width a range grows at the end that is hit."""
MARGIN = 0.15
"""Share of the old range that a narrower one keeps around the best trials, at each end."""
_LEAPS = 1.5


def wider(domain: Number, end: End, by: float = BY) -> dict[str, Any] | None:
    """The settings of a range that is wider at one end, by a share of its width; None where it cannot grow.

    A range of numbers that are not negative stays so, and one of shares stays within 0 and 1: beyond, most settings
    mean nothing.
    """
    width = domain.high - domain.low
    if domain.log:
        factor = (domain.high / domain.low) ** by
        new = domain.low / factor if end == "low" else domain.high * factor
    else:
        new = domain.low - by * width if end == "low" else domain.high + by * width
    new = rounded(domain, _within_bounds(domain, new), end)
    old = domain.low if end == "low" else domain.high
    grows = new < old if end == "low" else new > old
    return {end: new} if grows else None


def holding(domain: Number, value: Any) -> dict[str, Any]:
    """The settings of a range that reaches as far as `value`; empty where it does already, or that is no number."""
    if not is_number(value):
        return {}
    if value < domain.low:
        return {"low": rounded(domain, value, "low")}
    return {"high": rounded(domain, value, "high")} if value > domain.high else {}


def narrower(domain: Number, values: Sequence[float]) -> dict[str, Any]:
    """The settings of the part of a range that holds `values`, with `MARGIN` of the old range around them; empty where
    that is nothing less."""
    places = [domain.position(value) for value in values]
    low, high = max(0.0, min(places) - MARGIN), min(1.0, max(places) + MARGIN)
    new = {
        "low": domain.low if low == 0.0 else rounded(domain, domain.at(low), "low"),
        "high": domain.high if high == 1.0 else rounded(domain, domain.at(high), "high"),
    }
    return {end: value for end, value in new.items() if value != getattr(domain, end)}


def moved(domain: Number, new: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a narrower range `new` that reaches up to an end of the old one, and a little beyond it: what
    lies there was never tried, and the best are beside it."""
    ends: list[End] = [end for end in ENDS if end not in new]
    beyond_end = wider(domain, ends[0], MARGIN) if len(ends) == 1 else None
    return {**new, **(beyond_end or {})}


def rounded(domain: Number, value: float, end: End) -> Any:
    """A number in two digits, rounded outwards; on the domain's own steps where it has some."""
    outwards = math.floor if end == "low" else math.ceil
    if domain.step:
        steps = outwards(round((value - domain.low) / domain.step, 9))
        new = float(f"{domain.low + steps * domain.step:.12g}")
        return round(new) if isinstance(domain, Int) else new
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return float(f"{outwards(round(value / unit, 6)) * unit:.3g}")


def beyond(choices: Sequence[float], end: End) -> float | None:
    """The choice that would follow at one end of some numbers, by their last ratio or difference; None where that is
    not positive, or the same again."""
    one, last = (choices[1], choices[0]) if end == "low" else (choices[-2], choices[-1])
    leaps = one > 0 and last > 0 and max(one / last, last / one) >= _LEAPS
    new = last * last / one if leaps else last + (last - one)
    new = round(new) if all(isinstance(choice, int) for choice in choices) else float(f"{new:.3g}")
    return new if new > 0 and new not in choices else None


def described(settings: Mapping[str, Any]) -> str:
    """A parameter's settings as a person reads them: ``6e-05 .. 0.00012`` or ``64, 128``."""
    if "choices" in settings:
        return ", ".join(map(str, settings["choices"]))
    return f"{settings['low']:g} .. {settings['high']:g}"


def _within_bounds(domain: Number, new: float) -> float:
    if domain.low >= 0:
        new = max(new, 1.0 if isinstance(domain, Int) and domain.low >= 1 else 0.0)
    is_share = not isinstance(domain, Int) and domain.low >= 0 and domain.high <= 1 and not domain.log
    return min(new, 1.0) if is_share else new
