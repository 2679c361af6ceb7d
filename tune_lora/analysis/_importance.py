"""How much each hyperparameter explains: two of Optuna's measures, and how much they vary within the study."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.trial import FrozenTrial, create_trial

from tune_lora.analysis._evidence import Evidence
from tune_lora.records import TrialRecord

LEAST = 10
"""Completed trials below which no share is told."""
MOST = 150
"""Completed trials that shares are computed from, drawn evenly where there are more: of 1,000, fANOVA takes 5 s even
with few trees, and here it is asked nine times."""
PARTS = 8
"""Random halves of those trials, between which the shares vary."""
_TREES = 16


@dataclass(frozen=True)
class Importance:
    """One hyperparameter's share of the results' variance by fANOVA; `low` and `high` are its smallest and largest on
    `PARTS` random halves of the trials. `among_best` is its share by PED-ANOVA, which asks what sets the best tenth
    apart. `p` is there where it is told apart from chance by permutation, over all trials that ended.
    """

    name: str
    share: float
    low: float
    high: float
    among_best: float
    p: float | None


def importances(evidence: Evidence) -> tuple[Importance, ...]:
    """Each hyperparameter's importance, the largest first; empty where there are fewer than `LEAST` completed trials,
    all results are the same, or the study has several objectives."""
    names, done = _shared(evidence)
    if not names or evidence.record.has_several:
        return ()
    frozen = [_frozen(evidence, one, names) for one in done]
    fanova = FanovaImportanceEvaluator(n_trees=_TREES, seed=0)
    whole = _shares(evidence, frozen, fanova, names)
    best = _shares(evidence, frozen, PedAnovaImportanceEvaluator(), names)
    if not whole:
        return ()
    halves = [_shares(evidence, part, fanova, names) for part in _parts(frozen)]
    halves = [one for one in halves if one]
    found = []
    for name in sorted(names, key=lambda name: -whole[name]):
        among = [half[name] for half in halves] or [whole[name]]
        effect = evidence.effect(name)
        low, high = min(*among, whole[name]), max(*among, whole[name])
        found.append(Importance(name, whole[name], low, high, best.get(name, 0.0), effect.p if effect else None))
    return tuple(found)


def _shared(evidence: Evidence) -> tuple[list[str], list[TrialRecord]]:
    """Hyperparameters that most completed trials have and that varied among them, and the trials that have them all."""
    done = sorted(evidence.record.ranked(), key=lambda one: one.number)
    names = [name for name in evidence.domains if sum(name in one.params for one in done) > len(done) / 2]
    done = [one for one in done if all(name in one.params for name in names)]
    if len(done) < LEAST or len({one.value for one in done}) == 1:
        return [], []
    if len(done) > MOST:
        done = [done[row] for row in np.linspace(0, len(done) - 1, MOST).round().astype(int)]
    return [name for name in names if len({repr(one.params[name]) for one in done}) > 1], done


def _frozen(evidence: Evidence, trial: TrialRecord, names: Sequence[str]) -> FrozenTrial:
    distributions = {name: evidence.domains[name].to_distribution() for name in names}
    return create_trial(
        value=trial.value, params={name: trial.params[name] for name in names}, distributions=distributions
    )


def _parts(trials: Sequence[FrozenTrial]) -> list[list[FrozenTrial]]:
    draw = np.random.default_rng(4)
    size = max(LEAST, len(trials) // 2)
    return [[trials[row] for row in sorted(draw.choice(len(trials), size, replace=False))] for _ in range(PARTS)]


def _shares(
    evidence: Evidence, trials: Sequence[FrozenTrial], evaluator: BaseImportanceEvaluator, names: Sequence[str]
) -> Mapping[str, float]:
    """Shares by name that add up to 1; empty where the results of these trials do not vary."""
    if len({one.value for one in trials}) < 2:
        return {}
    with _quiet():
        study = optuna.create_study(direction=evidence.record.direction)
        study.add_trials(list(trials))
        found = get_param_importances(study, evaluator=evaluator)
    return {name: float(found.get(name, 0.0)) for name in names}


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of each study that it makes, and that PED-ANOVA is experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
