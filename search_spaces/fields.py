"""One parameter's settings to its domain, and the list of mistakes that reading collects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from search_spaces.domains import Categorical, Domain, Int, LogUniform, Uniform
from tune_lora.errors import nearest


class Mistakes:
    """Lines of the form ``place: what is wrong``, in the order they were found."""

    def __init__(self, where: str) -> None:
        self._where = where
        self.lines: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.lines)

    def add(self, place: str, message: str) -> None:
        """One mistake at a dotted place below `where`."""
        self.lines.append(f"{self._where}.{place}: {message}" if place else f"{self._where}: {message}")

    def unknown_keys(self, place: str, got: Mapping[str, Any], known: Iterable[str]) -> None:
        """A mistake for each key that nothing reads."""
        for key in got:
            self.unknown_name(place, key, "key", known)

    def unknown_name(self, place: str, name: Any, kind: str, known: Iterable[str]) -> None:
        """A mistake where `name` is not among `known`."""
        if name not in set(known):
            self.add(place, f"unknown {kind} {str(name)!r}; {nearest(str(name), known)}")


def read_domain(place: str, settings: Any, mistakes: Mistakes) -> Domain | None:
    """The domain that a parameter's settings describe; None where they are wrong."""
    if not isinstance(settings, Mapping):
        mistakes.add(place, f"got {settings!r}, must be a mapping with a type")
        return None
    kind = settings.get("type")
    if not isinstance(kind, str) or kind not in _READERS:
        mistakes.add(f"{place}.type", f"got {kind!r}; {nearest(str(kind), _READERS)}")
        return None
    keys, read = _READERS[kind]
    mistakes.unknown_keys(place, settings, ("type", "default", "when", *keys))
    return read(place, settings, mistakes)


def read_default(place: str, settings: Mapping[str, Any], domain: Domain, mistakes: Mistakes) -> Any:
    """A parameter's default, which lies in its domain."""
    value = settings["default"]
    if not domain.contains(value):
        mistakes.add(f"{place}.default", f"got {value!r}, must be one of {domain.describe()}")
    return value


def _categorical(place: str, settings: Mapping[str, Any], mistakes: Mistakes) -> Domain | None:
    choices = settings.get("choices")
    if not isinstance(choices, list) or not choices:
        mistakes.add(f"{place}.choices", f"got {choices!r}, must be a list with at least one value")
        return None
    good = True
    for index, choice in enumerate(choices):
        if choice is not None and not isinstance(choice, str | int | float | bool):
            mistakes.add(f"{place}.choices.{index}", f"got {choice!r}, must be a text, a number, true, false or null")
            good = False
        elif Categorical(tuple(choices[:index])).contains(choice):
            mistakes.add(f"{place}.choices.{index}", f"duplicate choice {choice!r}; must be given once")
            good = False
    return Categorical(tuple(choices)) if good else None


def _uniform(place: str, settings: Mapping[str, Any], mistakes: Mistakes) -> Domain | None:
    ends = _ends(place, settings, mistakes, whole=False)
    step = _number(f"{place}.step", settings["step"], mistakes) if settings.get("step") is not None else None
    if ends is None or not _step_fits(place, ends, step, mistakes):
        return None
    return Uniform(float(ends[0]), float(ends[1]), None if step is None else float(step))


def _loguniform(place: str, settings: Mapping[str, Any], mistakes: Mistakes) -> Domain | None:
    ends = _ends(place, settings, mistakes, whole=False)
    if ends is None or not _is_positive(place, ends[0], mistakes):
        return None
    return LogUniform(float(ends[0]), float(ends[1]))


def _int(place: str, settings: Mapping[str, Any], mistakes: Mistakes) -> Domain | None:
    ends = _ends(place, settings, mistakes, whole=True)
    step = _number(f"{place}.step", settings.get("step", 1), mistakes, whole=True)
    log = settings.get("log", False)
    if not isinstance(log, bool):
        mistakes.add(f"{place}.log", f"got {log!r}, must be true or false")
        return None
    if ends is None or step is None or not _step_fits(place, ends, step, mistakes):
        return None
    if log and step != 1:
        mistakes.add(f"{place}.step", f"got {step:g} with log, must be 1")
        return None
    if log and not _is_positive(place, ends[0], mistakes):
        return None
    return Int(int(ends[0]), int(ends[1]), int(step), log)


def _ends(place: str, settings: Mapping[str, Any], mistakes: Mistakes, *, whole: bool) -> tuple[float, float] | None:
    low, high = (_number(f"{place}.{end}", settings.get(end), mistakes, whole=whole) for end in ("low", "high"))
    if low is None or high is None:
        return None
    if low > high:
        mistakes.add(f"{place}.low", f"got {low:g}, must not be above high ({high:g}): the range is upside down")
        return None
    return low, high


def _number(place: str, value: Any, mistakes: Mistakes, *, whole: bool = False) -> float | None:
    wanted = "a whole number" if whole else "a number"
    if value is None:
        mistakes.add(place, f"is missing, must be {wanted}")
    elif not _is_finite_number(value) or (whole and value != int(value)):
        mistakes.add(place, f"got {value!r}, must be {wanted}")
    else:
        return float(value)
    return None


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(place: str, low: float, mistakes: Mistakes) -> bool:
    if low > 0:
        return True
    mistakes.add(f"{place}.low", f"got {low:g}, must be above 0 on a logarithmic scale")
    return False


def _step_fits(place: str, ends: tuple[float, float], step: float | None, mistakes: Mistakes) -> bool:
    if step is None:
        return True
    if step <= 0:
        mistakes.add(f"{place}.step", f"got {step:g}, must be above 0")
        return False
    # In decimals, as the file has them: 0.65 / 0.05 is not 13 in binary.
    low, high, size = (Decimal(str(number)) for number in (*ends, step))
    rest = (high - low) % size
    if rest:
        below = high - rest
        mistakes.add(f"{place}.high", f"got {high}, must be low and a whole number of steps: {below} or {below + size}")
    return not rest


_Reader = Callable[[str, Mapping[str, Any], Mistakes], Domain | None]
_READERS: Mapping[str, tuple[tuple[str, ...], _Reader]] = {
    "categorical": (("choices",), _categorical),
    "uniform": (("low", "high", "step"), _uniform),
    "loguniform": (("low", "high"), _loguniform),
    "int": (("low", "high", "step", "log"), _int),
}
