"""Optuna without Ray: `ask`, `report`, `should_prune`, `tell`, on the same clock, and its usual ways with rules."""

from __future__ import annotations

import math
from typing import Any, Literal

import optuna
from optuna.trial import Trial, TrialState
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from benchmarks.search.methods import TuneTrial, ray_result
from benchmarks.search.simulator import Start, Verdict
from benchmarks.search.tasks import EPOCHS, Task
from search_spaces.space import Space

Refusal = Literal["pruned", "constraints"]


class OptunaMethod:
    """A study that is asked and told as Optuna's documentation shows it.

    A suggestion that breaks a rule is told as pruned without training (what ``raise TrialPruned`` does) and counted in
    `wasted`; with ``constraints`` Optuna's own `set_constraint` is told by how much each rule is broken or kept.
    With `asha` that scheduler decides in place of the study's pruner.
    """

    def __init__(
        self, study: optuna.Study, space: Space, *, asha: TrialScheduler | None = None, refusal: Refusal = "pruned"
    ) -> None:
        self.study, self.wasted = study, 0
        self._space, self._distributions = space, space.distributions()
        self._asha, self._refusal = asha, refusal
        self._trials: dict[str, tuple[Trial, TuneTrial]] = {}

    def next(self) -> Start | None:
        while self._breaks_a_rule(trial := self.study.ask(self._distributions)):
            self.study.tell(trial, state=TrialState.PRUNED)
            self.wasted += 1
        known = TuneTrial(f"t{trial.number:05d}", dict(trial.params))
        self._trials[known.trial_id] = trial, known
        if self._asha is not None:
            self._asha.on_trial_add(None, known)
        return Start(known.trial_id, trial.params)

    def report(self, trial: str, epoch: int, score: float, final: bool) -> Verdict:
        asked, known = self._trials[trial]
        if math.isnan(score):
            self.study.tell(asked, state=TrialState.FAIL)
            self._end(known, epoch, score)
            return "stop"
        asked.report(score, epoch)
        if final:
            self.study.tell(asked, score)
            self._end(known, epoch, score)
        elif self._stops(asked, known, epoch, score):
            self.study.tell(asked, state=TrialState.PRUNED)
            self._end(known, epoch, score)
            return "stop"
        return "continue"

    def _breaks_a_rule(self, trial: Trial) -> bool:
        config = self._space.resolve(trial.params)
        if self._refusal == "constraints":
            for rule in self._space.constraints:
                trial.set_constraint(rule.name, rule.excess(config))
        return bool(self._space.violations(config))

    def _stops(self, asked: Trial, known: TuneTrial, epoch: int, score: float) -> bool:
        if self._asha is None:
            return asked.should_prune()
        decision: str = self._asha.on_trial_result(None, known, ray_result(epoch, score, final=False))
        return decision == TrialScheduler.STOP

    def _end(self, known: TuneTrial, epoch: int, score: float) -> None:
        if self._asha is not None and not math.isnan(score):
            self._asha.on_trial_complete(None, known, ray_result(epoch, score, final=True))


def alone(
    task: Task,
    seed: int,
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner | None = None,
    **how: Any,
) -> OptunaMethod:
    """Optuna with a sampler and a pruner; without one every trial is trained to the end. `how` goes to the method."""
    study = optuna.create_study(
        study_name=f"seed {seed}",  # Hyperband assigns its brackets by it
        direction="maximize",
        sampler=sampler,
        pruner=optuna.pruners.NopPruner() if pruner is None else pruner,
    )
    return OptunaMethod(study, task.space, **how)


def asha(grace: int, eta: float) -> ASHAScheduler:
    """Ray's ASHA over the whole curve."""
    return ASHAScheduler(
        time_attr="training_iteration", metric="score", mode="max", max_t=EPOCHS, grace_period=grace,
        reduction_factor=eta,
    )  # fmt: skip


def refusing(task: Task, seed: int, refusal: Refusal) -> OptunaMethod:
    """Univariate TPE and ASHA(6, 3), where a suggestion that breaks a rule is drawn and thrown away."""
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=False)
    return alone(task, seed, sampler, asha=asha(6, 3), refusal=refusal)
