"""What a setting may be, said once for every trainer. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tune_lora.errors import nearest


@dataclass(frozen=True)
class Rule:
    """A test of one value, and what a value must be; of a few names, the nearest is offered."""

    holds: Callable[[Any], bool]
    wanted: str
    names: Collection[str] = ()

    def mistake(self, name: str, value: Any) -> str | None:
        """What is wrong with a value, in one line, or None."""
        if self.holds(value):
            return None
        return f"{name}: got {value!r}; {nearest(str(value), self.names) if self.names else f'must be {self.wanted}'}"


def one_of(names: Collection[str]) -> Rule:
    """One of a few names."""
    return Rule(lambda value: isinstance(value, str) and value in names, ", ".join(names), names)


def number(
    least: float = 0.0,
    *,
    above: float | None = None,
    below: float = math.inf,
    most: float = math.inf,
    such_as: str = "",
) -> Rule:
    """A finite number from `least` (or above `above`), below `below` and up to `most`."""

    def holds(value: Any) -> bool:
        if not _is_number(value):
            return False
        return (value > above if above is not None else value >= least) and value < below and value <= most

    start = f"above {above:g}" if above is not None else f"from {least:g}"
    end = f", below {below:g}" if below < math.inf else f" to {most:g}" if most < math.inf else ""
    return Rule(holds, f"a number {start}{end}" + (f", such as {such_as}" if such_as else ""))


def _is_number(value: Any) -> bool:
    """Whether it is a finite number; a whole one that no float can hold is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def whole(least: int = 1) -> Rule:
    """A whole number from `least`; 2.0 is one."""

    def holds(value: Any) -> bool:
        return _is_number(value) and value >= least and value == int(value)

    return Rule(holds, f"a whole number from {least}")


TRUTH = Rule(lambda value: isinstance(value, bool), "true or false")
RATE = number(such_as="0.0001 or 1.0e-4")
"""A learning rate: YAML reads 1e-4 as a word."""
SHARE = Rule(number(0, below=1).holds, "a share from 0, below 1")


def mistakes(params: Mapping[str, Any], rules: Mapping[str, Rule]) -> list[str]:
    """What is wrong with the values that have a rule, one line each. A rule named ``x.*`` is for ``x.`` and more."""
    found = []
    for name, value in params.items():
        stem = name.partition(".")[0]
        rule = rules.get(name) or (rules.get(f"{stem}.*") if "." in name else None)
        if rule is not None and (mistake := rule.mistake(name, value)):
            found.append(mistake)
    return found


def is_known(name: str, rules: Mapping[str, Rule]) -> bool:
    """Whether a setting has a rule."""
    return name in rules or ("." in name and f"{name.partition('.')[0]}.*" in rules)
