"""What the sampler knows: an Optuna study in memory that mirrors the stored one, told in the way a sampler learns from.

The stored study says what happened. Samplers ignore trials that Optuna calls FAIL, so a configuration that explodes
would teach them nothing. Here it is PRUNED without a value, which is the worst a trial can be. The infrastructure's
failures and bugs stay FAIL. Past results that were carried into the study are told here only, and nothing is read from
disk while a value is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from search_spaces.feasible import FeasibleSampler
from search_spaces.space import Space
from trainables.protocol import Cause
from tune_lora import store
from tune_lora.knowledge import Knowledge

Carried = Callable[[Sequence[FrozenTrial]], Sequence[tuple[Mapping[str, Any], float]]]
"""Past results to tell, given the stored trials: parameters within the space, and a value on the study's scale."""


class Memory:
    """The sampler with all that it has been told. `direction` is Optuna's. `carried` are past results (default: those
    that the space holds)."""

    def __init__(
        self,
        space: Space,
        sampler: FeasibleSampler,
        direction: store.Direction,
        carried: Carried | None = None,
    ) -> None:
        self._space, self._sampler, self._direction = space, sampler, direction
        self._carried = carried or _held_by(space)
        self._begin(self._carried(()))

    def _begin(self, carried: Sequence[tuple[Mapping[str, Any], float]]) -> None:
        self._told = list(carried)
        self._study = optuna.create_study(direction=self._direction, sampler=self._sampler)
        self._running: dict[int, Trial] = {}
        self._known: set[int] = set()
        for params, value in self._told:
            self._study.add_trial(self._finished(params, TrialState.COMPLETE, value, {}))

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

    def learn(self, trials: Iterable[FrozenTrial]) -> None:
        """Takes in what the stored study says now; what is known already costs nothing.

        Where carried results stand elsewhere by now, or are let go, all is told anew: Optuna keeps what it was told.
        """
        trials = list(trials)
        if (carried := list(self._carried(trials))) != self._told:
            self._begin(carried)
        for trial in trials:
            if trial.state == TrialState.WAITING:
                continue
            if trial.number in self._running:
                self._finish(trial)
            elif trial.number not in self._known:
                self._meet(trial)

    def _meet(self, trial: FrozenTrial) -> None:
        if trial.state == TrialState.RUNNING:
            self.bind(trial.number, self.adopt(self._space.within(trial.params)))
            return
        state, value, curve = as_told(trial)
        self._study.add_trial(self._finished(trial.params, state, value, curve))
        self._known.add(trial.number)

    def _finish(self, trial: FrozenTrial) -> None:
        if not trial.state.is_finished():
            return
        state, value, curve = as_told(trial)
        mine = self._running.pop(trial.number)
        for budget, score in curve.items():
            mine.report(score, budget)
        self._study.tell(mine, value, state)

    def _finished(
        self, params: Mapping[str, Any], state: TrialState, value: float | None, curve: Mapping[int, float]
    ) -> FrozenTrial:
        within, distributions = self._space.within(params), self._space.distributions()
        return create_trial(
            state=state,
            value=value,
            params=within,
            distributions={name: distributions[name] for name in within},
            intermediate_values=dict(curve),
        )


def _held_by(space: Space) -> Carried:
    sources = Knowledge.of(space).sources
    told = [(point.params, point.value) for source in sources for point in source.told if point.value is not None]
    return lambda _: told


def as_told(trial: FrozenTrial) -> tuple[TrialState, float | None, dict[int, float]]:
    """State, value and intermediate values of a finished trial as a sampler is told them."""
    if trial.state == TrialState.COMPLETE:
        return TrialState.COMPLETE, trial.value, dict(trial.intermediate_values)
    if trial.state == TrialState.PRUNED:
        return TrialState.PRUNED, None, dict(trial.intermediate_values)
    cause = trial.user_attrs.get(store.CAUSE)
    at_fault = cause is not None and Cause(cause).is_fault_of_configuration
    return (TrialState.PRUNED if at_fault else TrialState.FAIL), None, {}
