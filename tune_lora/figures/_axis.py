"""How one hyperparameter is laid out on an axis: linear, logarithmic, or one place for each choice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tune_lora.figures._canvas import Missing, number, short
from tune_lora.store import StudyRecord, TrialRecord


@dataclass(frozen=True)
class ParamAxis:
    """One hyperparameter's axis. `choices` is empty for numbers; `low` and `high` hold all values that were tried."""

    name: str
    low: float
    high: float
    log: bool = False
    choices: tuple[Any, ...] = ()

    def place(self, value: Any) -> float:
        """Where a value lies, as a share of the axis: 0 at its low end, 1 at its high end."""
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        low, high, at = (float(np.log(x)) if self.log else float(x) for x in (self.low, self.high, value))
        return (at - low) / (high - low) if high > low else 0.5

    def ticks(self, most: int = 5) -> tuple[list[float], list[str]]:
        """Places and labels of the tick marks."""
        if self.choices:
            return [self.place(choice) for choice in self.choices], [short(choice, 18) for choice in self.choices]
        if self.low == self.high:
            return [0.5], [number(self.low)]
        at = self._round_values(most)
        return [self.place(value) for value in at], [number(value) for value in at]

    def _round_values(self, most: int) -> list[float]:
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            if last - first >= 2:  # powers of ten say that it is a logarithmic axis
                return [float(f"1e{power}") for power in range(first, last + 1, math.ceil((last - first + 1) / most))]
            values = [float(f"{value:.1e}") for value in np.geomspace(self.low, self.high, most)]
        else:
            values = [float(v) for v in mpl.ticker.MaxNLocator(most - 1).tick_values(self.low, self.high)]
        slack = 1e-9 * abs(self.high)
        return [value for value in values if self.low - slack <= value <= self.high + slack]


def param_axes(record: StudyRecord, study: optuna.Study, names: Iterable[str] | None = None) -> dict[str, ParamAxis]:
    """The axes of hyperparameters by name, wide enough for references that lie outside the space."""
    domains: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        domains.update(trial.distributions)
    wanted = record.parameter_names if names is None else names
    return {name: _axis(name, domains.get(name), _values(record, name)) for name in wanted}


def varying(axes: Mapping[str, ParamAxis], record: StudyRecord, trials: Iterable[TrialRecord]) -> list[str]:
    """Names of hyperparameters that took at least two values in these trials."""
    tried = [record.tried(trial) for trial in trials]
    return [name for name in axes if len({repr(one[name]) for one in tried if name in one}) > 1]


def completed(record: StudyRecord, at_least: int) -> list[TrialRecord]:
    """The completed trials by number.

    Raises:
        Missing: there are fewer than `at_least`.
    """
    done = sorted(record.ranked(), key=lambda trial: trial.number)
    if len(done) < at_least:
        have = f"{len(done)} trial{'' if len(done) == 1 else 's'}"
        raise Missing(
            f"Needs at least {at_least} completed trial{'' if at_least == 1 else 's'}; {have} completed so far."
        )
    return done


def _values(record: StudyRecord, name: str) -> list[Any]:
    tried = (record.tried(trial) for trial in record.trials)
    return [one[name] for one in tried if name in one]


def _axis(name: str, domain: BaseDistribution | None, values: Sequence[Any]) -> ParamAxis:
    if isinstance(domain, FloatDistribution | IntDistribution):
        inside = [*(value for value in values if _is_number(value)), domain.low, domain.high]
        if len(inside) == len(values) + 2 and (min(inside) > 0 or not domain.log):
            return ParamAxis(name, min(inside), max(inside), log=domain.log)
    known = domain.choices if isinstance(domain, CategoricalDistribution) else ()
    choices = tuple(dict.fromkeys([*known, *values]))
    if all(_is_number(choice) for choice in choices):
        choices = tuple(sorted(choices))
    return ParamAxis(name, 0.0, 1.0, choices=choices)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
