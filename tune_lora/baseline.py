"""How trials compare with the study's own baseline: a reference configuration of that name, which runs first.

Pure functions of the records, for any study whose space has a prior named ``baseline``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tune_lora.records import PRIOR, StudyRecord, TrialRecord, completed, origin_of

BASELINE = "baseline"
PROVENANCE = f"{PRIOR}{BASELINE}"
BEST, WORST = 5, 3
"""How many trials are shown of each end."""


@dataclass(frozen=True)
class Change:
    """One hyperparameter of the best trial beside the baseline's. `percent` is there for numbers.

    `better` and `worse` count the completed trials with another value than the baseline's whose result was better, or
    not better, than the baseline's.
    """

    name: str
    baseline: Any
    best: Any
    percent: float | None
    better: int
    worse: int


def baseline_trial(record: StudyRecord) -> TrialRecord | None:
    """The completed baseline of a study with one objective, or None."""
    if record.has_several:
        return None
    origins = record.provenances
    begun = next((number for number, origin in origins.items() if origin == PROVENANCE), None)
    if begun is None:
        return None
    found = (trial for trial in completed(record) if is_one(trial.number, lambda number: origins.get(number, "")))
    return next(found, None)


def is_one(number: int, provenance: Callable[[int], str]) -> bool:
    """Whether a trial is the baseline, or runs it again because the infrastructure had ended it. `provenance` is that
    of the trial of a number, empty where there is none.
    """
    return origin_of(number, provenance) == PROVENANCE


def improvement(record: StudyRecord, trial: TrialRecord) -> float | None:
    """(baseline - value) / baseline in percent, positive where the trial is better; None where there is no baseline,
    the trial has no value, or the baseline's value is 0.
    """
    return _gain(record.direction, baseline_trial(record), trial)


def _gain(direction: str, base: TrialRecord | None, trial: TrialRecord) -> float | None:
    if base is None or trial.value is None or not base.value:
        return None
    gain = base.value - trial.value if direction == "minimize" else trial.value - base.value
    return 100 * gain / abs(base.value)


def improvements(record: StudyRecord) -> dict[int, float]:
    """Improvement in percent of every completed trial, by number; the baseline's own is 0."""
    base = baseline_trial(record)
    found = {trial.number: _gain(record.direction, base, trial) for trial in completed(record)}
    return {number: percent for number, percent in found.items() if percent is not None}


def best(record: StudyRecord, n: int = BEST) -> list[TrialRecord]:
    """The best completed trials, best first."""
    return record.ranked()[:n]


def worst(record: StudyRecord, n: int = WORST) -> list[TrialRecord]:
    """The worst completed trials, worst first, none that is among the best already."""
    return record.ranked()[BEST:][::-1][:n]


def changes(record: StudyRecord) -> list[Change]:
    """What the best trial does differently from the baseline, one entry a hyperparameter."""
    base, winner = baseline_trial(record), record.winner
    if base is None or winner is None:
        return []
    was, now = record.tried(base), record.tried(winner)
    return [_change(record, name, was.get(name), now.get(name)) for name in dict.fromkeys([*was, *now])]


@dataclass(frozen=True)
class Measure:
    """One metric of the baseline's last report and of the best trial's; `percent` is the change between them."""

    name: str
    baseline: float
    best: float
    percent: float | None


def measures(record: StudyRecord) -> list[Measure]:
    """What was measured of the baseline and of the best trial, those of single folds left out."""
    base, winner = baseline_trial(record), record.winner
    if base is None or winner is None or base.number == winner.number:
        return []
    shared = [name for name in base.metrics if name in winner.metrics and not name.startswith("fold_")]
    pairs = [(name, base.metrics[name], winner.metrics[name]) for name in shared]
    return [Measure(name, was, now, _percent(was, now)) for name, was, now in pairs]


def _change(record: StudyRecord, name: str, was: Any, now: Any) -> Change:
    others = [trial for trial in completed(record) if record.tried(trial).get(name) != was]
    base = baseline_trial(record)
    better = sum((_gain(record.direction, base, trial) or 0.0) > 0 for trial in others)
    return Change(name, was, now, _percent(was, now), better, len(others) - better)


def _percent(was: Any, now: Any) -> float | None:
    if not (_is_number(was) and _is_number(now)) or was == 0:
        return None
    return 100 * (float(now) - float(was)) / abs(float(was))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def stored(record: StudyRecord) -> Mapping[str, float]:
    """The improvements as the study keeps them: JSON has no whole numbers for names."""
    return {str(number): percent for number, percent in improvements(record).items()}
