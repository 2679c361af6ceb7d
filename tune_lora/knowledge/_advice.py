"""What a sampler is told of carried results, for as long as they do not mislead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search_spaces.space import Space
from trainables.protocol import Cause
from tune_lora import store
from tune_lora.knowledge import _guard as guard
from tune_lora.knowledge import _ledger as ledger
from tune_lora.knowledge._points import Knowledge, Source
from tune_lora.knowledge._scale import as_own, quantiles
from tune_lora.store import Direction

PROBES = frozenset({2, 5, 8, 11})
"""Trials that are drawn as if nothing were carried. A search that stays where bad advice points never sees what lies
elsewhere, and could not tell bad advice from good."""

Told = list[tuple[Mapping[str, Any], float]]


class Advice:
    """Carried results on the scale of a study, as its own results come in.

    What is let go is written on the study, with the reason in words, and stays let go when the study goes on.
    """

    def __init__(
        self, study: optuna.Study, space: Space, knowledge: Knowledge, direction: Direction, *, guarded: bool = True
    ) -> None:
        self._study, self._space, self._direction, self._guarded = study, space, direction, guarded
        self._sources = [source for source in knowledge.sources if source.told]
        self._predictors: dict[str, guard.Predict | None] = {}
        self._seen = (0, 0)
        ledger.write(study, knowledge)
        self._let_go = dict(ledger.let_go(study)) if guarded else {}

    def __call__(self, trials: Sequence[FrozenTrial]) -> Told:
        """Parameters and values to tell now, given the stored trials of this study."""
        if not self._sources:
            return []
        if self._guarded:
            self._look(trials)
            if len(trials) in PROBES and not self._let_go:
                return []
        own = [trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
        kept = (source for source in self._sources if source.label not in self._let_go)
        return [told for source in kept for told in _on_scale(source, own, self._direction)]

    def _look(self, trials: Sequence[FrozenTrial]) -> None:
        sign = 1.0 if self._direction == "minimize" else -1.0
        own = [one for one in (_own(trial, self._space, sign) for trial in trials) if one.says_something]
        seen = (len(own), sum(len(one.scores) + (one.final is not None) for one in own))
        if seen == self._seen or not guard.LEAST_OWN <= len(own) <= guard.MOST_OWN:
            return
        self._seen = seen
        for source in self._sources:
            if source.label not in self._let_go and (predict := self._predictor(source)):
                verdict = guard.judge(predict, own)
                if verdict is not None and verdict.misleads:
                    self._let_go[source.label] = _in_words(source, verdict)
                    self._study.set_user_attr(store.LET_GO, self._let_go)

    def _predictor(self, source: Source) -> guard.Predict | None:
        if source.label not in self._predictors:
            shares = quantiles([point.value or 0.0 for point in source.told], source.direction)
            params = [point.params for point in source.told]
            self._predictors[source.label] = guard.predictor(self._space, params, list(shares))
        return self._predictors[source.label]


def _on_scale(source: Source, own: Sequence[float], direction: Direction) -> Iterable[tuple[Mapping[str, Any], float]]:
    values = [point.value or 0.0 for point in source.told]
    if source.values == "ranks":
        values = as_own(quantiles(values, source.direction), own, direction)
    return zip((point.params for point in source.told), values, strict=True)


def _own(trial: FrozenTrial, space: Space, sign: float) -> guard.Own:
    params = space.within(trial.params)
    if any(name not in params and space.exists(name, space.resolve(params)) for name in space.parameters):
        return guard.Own(params)  # a reference outside the space: nothing was promised there
    if trial.state == TrialState.FAIL:
        cause = trial.user_attrs.get(store.CAUSE)
        return guard.Own(params, failed=cause is not None and Cause(cause).is_fault_of_configuration)
    scores = {budget: sign * score for budget, score in trial.intermediate_values.items()}
    final = trial.value if trial.state == TrialState.COMPLETE else None
    return guard.Own(params, scores, None if final is None else sign * final)


def _in_words(source: Source, verdict: guard.Verdict) -> str:
    return (
        f"let go of the {len(source.told)} results of {source.label}: over {verdict.trials} trials of this study, "
        f"better was promised where worse was found (agreement {verdict.agreement:+.2f}, by chance in "
        f"{max(verdict.chance, 0.001):.1%} of cases)"
    )
