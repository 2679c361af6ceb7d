"""What a finished study says to a rule of thumb: whether it matters there, and whether the best trials keep it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import optuna

from tune_lora import figures, wording
from tune_lora.records import StudyRecord, TrialRecord

ENOUGH = 10
"""Completed trials below which nothing is said."""
BEST = 5
"""How many of the best trials are looked at."""
MATTERS = 0.1
"""Share of the scores' variance from which a setting matters."""

Recommended = Callable[[Mapping[str, Any]], "bool | None"]
"""Whether a configuration keeps to the rule; None where it cannot be told."""


def evidence(record: StudyRecord, study: optuna.Study, asked: Sequence[str], recommended: Recommended) -> str:
    """One line that ends in a verdict: supported, contradicted or unclear. `asked` are the hyperparameters that the
    rule is about, the first of which is named.
    """
    if not asked:
        return "not searched there"
    done = record.ranked()
    if len(done) < ENOUGH:
        return f"too few trials ({len(done)} completed, {ENOUGH} or more would tell)"
    judged = [(trial, keeps) for trial in done if (keeps := recommended(trial.config)) is not None]
    keeping, breaking = ([trial for trial, keeps in judged if keeps is which] for which in (True, False))
    share = _share(record, study, asked)
    matters = "importance unknown" if share is None else f"importance {share:.2f}"
    seen = f"{matters} in {len(done)} trials"
    if not keeping or not breaking:
        return f"{seen}, {'all' if keeping else 'none'} of which keep it: cannot be told"
    best = judged[:BEST]
    kept = sum(keeps for _, keeps in best)
    ahead = _rank(done, keeping) < _rank(done, breaking)
    if share is not None and share < MATTERS:
        return f"{seen}, {kept} of the best {len(best)} keep it: matters little there"
    if kept > len(best) / 2 and ahead:
        return f"{seen}, {kept} of the best {len(best)} keep it: supported"
    if kept < len(best) / 2 and not ahead:
        return f"{seen}; the best {len(best)} had {_values(best, asked[0])}: contradicted"
    return f"{seen}, {kept} of the best {len(best)} keep it: unclear"


def _share(record: StudyRecord, study: optuna.Study, asked: Sequence[str]) -> float | None:
    """Of the scores' variance, explained by what is asked about; None where it cannot be worked out."""
    if record.has_several:
        return None
    try:
        found = figures.importances(record, study)
    except figures.Missing:
        return None
    return sum(found.get(name, 0.0) for name in asked)


def _rank(done: Sequence[TrialRecord], some: Sequence[TrialRecord]) -> float:
    places = {trial.number: place for place, trial in enumerate(done)}
    return median(places[trial.number] for trial in some)


def _values(best: Sequence[tuple[TrialRecord, bool]], name: str) -> str:
    shown = [wording.setting(name, trial.config) for trial, _ in best if name in trial.config]
    return f"{name} {', '.join(dict.fromkeys(shown))}"
