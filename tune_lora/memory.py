"""What the sampler knows: an Optuna study in memory that mirrors the stored one, told in the way a sampler learns from.

The stored study says what happened. Samplers ignore trials that Optuna calls FAIL, so a configuration that explodes
would teach them nothing. Here it is PRUNED without a value, which is the worst a trial can be. The infrastructure's
failures and bugs stay FAIL. With several objectives a pruned trial has no value either: one scalar of a trial that was
cut off says nothing about its place among the others in all objectives. TPE counts it among those that are not good;
NSGA-II and the GP learn from completed trials only. Past results that were carried into the study are told here only,
and nothing is read from disk while a value is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from search_spaces.feasible import FeasibleSampler
from search_spaces.predictive import FAILED, TRIED
from search_spaces.space import Space
from trainables.protocol import Cause
from tune_lora import store
from tune_lora.knowledge import Knowledge

Carried = Callable[[Sequence[FrozenTrial]], Sequence[tuple[Mapping[str, Any], float]]]
"""Past results to tell, given the stored trials: parameters within the space, and a value on the study's scale."""


class Memory:
    """The sampler with all that it has been told. `direction` is Optuna's, one an objective. `carried` are past results
    (default: those that the space holds)."""

    def __init__(
        self,
        space: Space,
        sampler: FeasibleSampler,
        direction: store.Direction | Sequence[store.Direction],
        carried: Carried | None = None,
    ) -> None:
        self._space, self._sampler = space, sampler
        self._directions = [direction] if isinstance(direction, str) else list(direction)
        self._carried = carried or _held_by(space)
        self._begin(self._carried(()))

    def _begin(self, carried: Sequence[tuple[Mapping[str, Any], float]]) -> None:
        self._told = list(carried)
        self._study = optuna.create_study(directions=self._directions, sampler=self._sampler)
        self._running: dict[int, Trial] = {}
        self._known: set[int] = set()
        self._heard: dict[int, set[int]] = {}
        for params, value in self._told:
            self._study.add_trial(self._finished(params, TrialState.COMPLETE, [value], {}))

    @property
    def is_exhausted(self) -> bool:
        """Whether the sampler has nothing left to draw: only ever a grid."""
        return self._sampler.exhausted(self._study)

    def draw(self) -> tuple[dict[str, Any], Trial]:
        """Parameters for the next trial; `bind` says what became of them."""
        trial = self._study.ask()
        return self._space.suggest(trial), trial

    def adopt(self, params: Mapping[str, Any]) -> Trial:
        """A trial whose parameters somebody else chose (a prior, a retry). `params` lie within the space."""
        self._study.enqueue_trial(dict(params))
        trial = self._study.ask()
        for name in self._space.order:
            if name in params:
                self._space.parameters[name].domain.suggest(trial, name)
        return trial

    def bind(self, number: int, trial: Trial) -> None:
        """The stored trial `number` is the one that was drawn or adopted."""
        self._running[number] = trial
        self._known.add(number)

    def forget(self, trial: Trial) -> None:
        """A trial that was drawn or adopted is not run after all."""
        self._study.tell(trial, state=TrialState.FAIL)

    def learn(self, trials: Sequence[FrozenTrial], changed: Iterable[FrozenTrial] | None = None) -> None:
        """Takes in what the stored study says now; what is known already costs nothing. `changed` are the trials of
        which something is new since the last call, where that is known.

        Where carried results stand elsewhere by now, or are let go, all is told anew: Optuna keeps what it was told.
        """
        if (carried := list(self._carried(trials))) != self._told:
            self._begin(carried)
            changed = None
        for trial in trials if changed is None else changed:
            if trial.state == TrialState.WAITING:
                continue
            if trial.number not in self._known:
                self._meet(trial)
            if trial.number in self._running:
                self._follow(trial)

    def _meet(self, trial: FrozenTrial) -> None:
        if trial.state == TrialState.RUNNING:
            self.bind(trial.number, self.adopt(self._space.within(trial.params)))
            return
        self._study.add_trial(self._finished(trial.params, *as_told(trial), self._said_of(trial)))
        self._known.add(trial.number)

    def _follow(self, trial: FrozenTrial) -> None:
        mine = self._running[trial.number]
        if TRIED not in mine.user_attrs:  # the part that lies outside the space too
            mine.set_user_attr(TRIED, self._tried(trial))
        if not trial.state.is_finished():
            if self._sampler.learns_from_running:
                self._hear(trial.number, trial.intermediate_values)
            return
        state, values, curve = as_told(trial)
        self._hear(trial.number, curve)
        mine.set_user_attr(FAILED, _is_at_fault(trial))
        self._study.tell(self._running.pop(trial.number), values, state)

    def _hear(self, number: int, curve: Mapping[int, float]) -> None:
        """What a trial has reported, each budget once."""
        heard = self._heard.setdefault(number, set())
        for budget in sorted(curve.keys() - heard):
            self._running[number].report(curve[budget], budget)
            heard.add(budget)

    def _tried(self, trial: FrozenTrial) -> dict[str, Any]:
        """What a stored trial tried, with what lies outside the space."""
        config = {**trial.user_attrs.get(store.CONFIG, {}), **trial.params}
        return {name: config[name] for name in self._space.parameters if name in config}

    def _said_of(self, trial: FrozenTrial) -> dict[str, Any]:
        """What Optuna's record of a trial that ended does not hold."""
        return {TRIED: self._tried(trial), FAILED: _is_at_fault(trial)}

    def _finished(
        self,
        params: Mapping[str, Any],
        state: TrialState,
        values: list[float] | None,
        curve: Mapping[int, float],
        attributes: Mapping[str, Any] | None = None,
    ) -> FrozenTrial:
        within, distributions = self._space.within(params), self._space.distributions()
        return create_trial(
            state=state,
            values=values,
            params=within,
            distributions={name: distributions[name] for name in within},
            intermediate_values=dict(curve),
            user_attrs=dict(attributes or {}),
            system_attrs=self._sampler.marks(self._study) if state == TrialState.COMPLETE else None,
        )


def _held_by(space: Space) -> Carried:
    sources = Knowledge.of(space).sources
    told = [(point.params, point.value) for source in sources for point in source.told if point.value is not None]
    return lambda _: told


def as_told(trial: FrozenTrial) -> tuple[TrialState, list[float] | None, dict[int, float]]:
    """State, values and intermediate values of a finished trial as a sampler is told them."""
    if trial.state == TrialState.COMPLETE:
        return TrialState.COMPLETE, trial.values, dict(trial.intermediate_values)
    if trial.state == TrialState.PRUNED:
        return TrialState.PRUNED, None, dict(trial.intermediate_values)
    return (TrialState.PRUNED if _is_at_fault(trial) else TrialState.FAIL), None, {}


def _is_at_fault(trial: FrozenTrial) -> bool:
    cause = trial.user_attrs.get(store.CAUSE)
    return cause is not None and Cause(cause).is_fault_of_configuration
