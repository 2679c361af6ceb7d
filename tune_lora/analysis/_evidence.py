"""The trials of a study as statistics sees them: an outcome for each, and columns for each hyperparameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from scipy.stats import rankdata

from search_spaces.domains import Categorical, Domain, Number
from tune_lora.analysis._domains import domains_of
from tune_lora.analysis._permutation import Array, Effect, can_tell, normal_scores, told_apart
from tune_lora.records import StudyRecord, TrialRecord

MOST = 400
"""Trials that are looked at where there are more, drawn evenly."""


@dataclass(frozen=True)
class Evidence:
    """A study's trials that say something about its hyperparameters: those that completed, were pruned, or failed
    through their configuration.
    """

    record: StudyRecord

    @cached_property
    def ended(self) -> tuple[TrialRecord, ...]:
        """The trials that say something, by number."""
        return tuple(one for one in self.record.trials if one.counts and _says_something(one))

    @cached_property
    def looked_at(self) -> tuple[TrialRecord, ...]:
        """`ended`, or `MOST` of them drawn evenly: more add nothing but time."""
        if len(self.ended) <= MOST:
            return self.ended
        rows = np.linspace(0, len(self.ended) - 1, MOST).round().astype(int)
        return tuple(self.ended[row] for row in rows)

    @cached_property
    def standing(self) -> Array:
        """Place of each trial of `looked_at` among them, 1 the best: completed ones by their result, then pruned ones
        by how far they came, then those that failed. Ties share a place."""
        return standing(self.record, self.looked_at)

    @cached_property
    def _domains(self) -> tuple[dict[str, Domain], frozenset[str]]:
        return domains_of(self.record)

    @property
    def domains(self) -> dict[str, Domain]:
        """The domain of each sampled hyperparameter."""
        return self._domains[0]

    @property
    def bounded(self) -> frozenset[str]:
        """Hyperparameters whose range is the study's own, so that its edges mean something."""
        return self._domains[1]

    @cached_property
    def columns(self) -> dict[str, Array]:
        """Columns (n, k) of each hyperparameter that varied: place and its square of a number, one column a choice."""
        tried = [self.record.tried(trial) for trial in self.looked_at]
        made = {name: _columns(domain, [one.get(name) for one in tried]) for name, domain in self.domains.items()}
        return {name: columns for name, columns in made.items() if columns.shape[1]}

    @cached_property
    def can_tell(self) -> bool:
        """Whether there are trials enough to tell any hyperparameter from chance."""
        return bool(self.columns) and can_tell(len(self.looked_at), self.columns)

    @cached_property
    def effects(self) -> list[Effect]:
        """Hyperparameters that go with how well trials did, told apart from chance; the strongest first."""
        return told_apart(normal_scores(self.standing), self.columns) if self.can_tell else []

    def effect(self, name: str) -> Effect | None:
        """That of one hyperparameter."""
        return next((one for one in self.effects if one.name == name), None)

    @cached_property
    def pairs(self) -> dict[str, Array]:
        """Products of the columns of each two hyperparameters, named ``a * b``."""
        return {
            f"{one} * {two}": np.einsum("ni,nj->nij", _linear(self.columns[one]), _linear(self.columns[two])).reshape(
                len(self.looked_at), -1
            )
            for one, two in combinations(self.columns, 2)
        }

    @cached_property
    def can_tell_pairs(self) -> bool:
        """Whether enough trials are left once each hyperparameter by itself is taken out."""
        return bool(self.pairs) and can_tell(len(self.looked_at), self.pairs, np.column_stack([*self.columns.values()]))

    @cached_property
    def interactions(self) -> list[Effect]:
        """Pairs whose joint effect is more than the sum of the two, told apart from chance; the strongest first."""
        if not self.can_tell_pairs:
            return []
        return told_apart(normal_scores(self.standing), self.pairs, np.column_stack([*self.columns.values()]), seed=1)

    def distances(self, trials: Sequence[TrialRecord]) -> Array:
        """How far apart configurations lie, (n, n): the mean over hyperparameters, each from 0 to 1."""
        tried = [self.record.tried(one) for one in trials]
        apart = [_apart(domain, [one.get(name) for one in tried]) for name, domain in self.domains.items()]
        return np.asarray(np.mean(apart, axis=0) if apart else np.zeros((len(tried), len(tried))), dtype=float)


def standing(record: StudyRecord, trials: Sequence[TrialRecord]) -> Array:
    """Place of each trial among `trials`, as `Evidence.standing`."""
    places = {trial.number: place for place, trial in enumerate(record.ranked())} if record.has_several else {}
    sign = 1 if record.direction == "minimize" else -1

    def key(trial: TrialRecord) -> tuple[float, ...]:
        if trial.state == "complete":
            return (0, 0, places[trial.number] if record.has_several else sign * (trial.value or 0.0))
        if trial.state == "pruned":
            last = max(trial.curve, default=0)
            return (1, -last, sign * trial.curve.get(last, 0.0))
        return (2, 0, 0)

    keys = [key(trial) for trial in trials]
    order = {one: place for place, one in enumerate(sorted(set(keys)))}
    return np.asarray(rankdata([order[one] for one in keys]), dtype=float)


def _says_something(trial: TrialRecord) -> bool:
    if trial.state == "failed":
        return trial.cause is not None and trial.cause.is_fault_of_configuration
    return trial.state == "pruned" or trial.value is not None or bool(trial.values)


def _columns(domain: Domain, values: Sequence[object]) -> Array:
    """(n, k) without constant columns; where a conditional hyperparameter is absent all are 0, and one says so."""
    if isinstance(domain, Number):
        places = [_place(domain, value) for value in values]
        there = np.array([place is not None for place in places])
        at = np.array([0.0 if place is None else 2 * place - 1 for place in places])
        columns = [at, np.where(there, at**2, 0.0), ~there]
    else:
        columns = [np.array([_same(value, choice) for value in values]) for choice in (domain.values() or ())]
        columns = columns[:-1] if np.sum(columns, axis=0).all() else columns  # the last one follows from the others
    stacked = np.column_stack([np.zeros(len(values)), *(column.astype(float) for column in columns)])
    return np.asarray(stacked[:, np.ptp(stacked, axis=0) > 0] if len(values) else stacked[:, :0], dtype=float)


def _linear(columns: Array) -> Array:
    """Without squares: what two hyperparameters do together is looked for in the simplest products."""
    return columns if np.isin(columns, (0.0, 1.0)).all() else columns[:, :1]


def _place(domain: Number, value: object) -> float | None:
    return domain.position(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _same(left: object, right: object) -> bool:
    return Categorical((left,)).contains(right)


def _apart(domain: Domain, values: Sequence[object]) -> Array:
    """Distances (n, n) in one hyperparameter: of numbers in shares of the range, else 0 where they are the same."""
    kinds = {(isinstance(value, bool), value): index for index, value in enumerate(values)}
    at = np.array([kinds[isinstance(value, bool), value] for value in values])
    apart = (at[:, None] != at[None, :]).astype(float)
    if isinstance(domain, Number):
        known = [_place(domain, value) for value in values]
        place = np.array([np.nan if one is None else one for one in known])
        between = np.abs(place[:, None] - place[None, :])
        apart = np.where(np.isnan(between), apart, between)
    return apart
