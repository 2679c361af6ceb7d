"""Search methods as the virtual clock drives them: ours, and Ray's own, through Ray Tune's calls in Ray's order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from benchmarks.search.simulator import Start, Verdict
from benchmarks.search.tasks import EPOCHS, Task
from tune_lora import scheduler as schedulers
from tune_lora.searcher import StudySearcher

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class TuneTrial:
    """What searchers and schedulers look at in a Tune trial."""

    trial_id: str
    config: dict[str, Any]
    status: str = "RUNNING"
    last_result: dict[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.trial_id)


class RayMethod:
    """A Ray searcher and a Ray scheduler. `params_of` finds the parameters in a configuration; `result_of` makes the
    result that a trainable would report.
    """

    def __init__(
        self,
        searcher: Searcher,
        scheduler: TrialScheduler,
        params_of: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        result_of: Callable[[int, float, bool], dict[str, Any]],
    ) -> None:
        self.searcher, self.scheduler = searcher, scheduler
        self._params_of, self._result_of = params_of, result_of
        self._trials: dict[str, TuneTrial] = {}

    def next(self) -> Start | None:
        name = f"t{len(self._trials):05d}"
        config = self.searcher.suggest(name)
        if not isinstance(config, dict):
            return None
        trial = self._trials[name] = TuneTrial(name, config)
        self.scheduler.on_trial_add(None, trial)
        return Start(name, self._params_of(config))

    def report(self, trial: str, epoch: int, score: float, final: bool) -> Verdict:
        known, result = self._trials[trial], self._result_of(epoch, score, final)
        known.last_result = result
        if math.isnan(score):  # a trainable of ours says why, one that raises is an error
            if "cause" in result:
                self._end(known, result)
            else:
                self.scheduler.on_trial_error(None, known)
                self.searcher.on_trial_complete(trial, error=True)
            return "stop"
        decision = "STOP" if final else self.scheduler.on_trial_result(None, known, result)
        if decision == TrialScheduler.STOP:
            self._end(known, result)
            return "stop"
        self.searcher.on_trial_result(trial, result)
        return "continue"

    def _end(self, trial: TuneTrial, result: dict[str, Any]) -> None:
        self.scheduler.on_trial_complete(None, trial, result)
        self.searcher.on_trial_complete(trial.trial_id, result=result)


class Ours(RayMethod):
    """tune-lora's searcher, whose stored study says what became of every suggestion."""

    def __init__(self, study: optuna.Study, searcher: StudySearcher, scheduler: TrialScheduler) -> None:
        super().__init__(searcher, scheduler, lambda config: config["params"], _our_result)
        self._study = study

    @property
    def wasted(self) -> int:
        """Stored trials that never began."""
        return len(self._study.get_trials(deepcopy=False)) - len(self._trials)


def ours(
    task: Task,
    seed: int,
    *,
    sampler: str = "tpe",
    grace: int = 6,
    eta: float = 3,
    n_trials: int = 10_000,
    scheduler: str = "asha",
    n_startup_trials: int = 10,
    **settings: Any,
) -> Ours:
    """tune-lora's searcher and scheduler, as `tune_lora.tuning` puts them together."""
    study = optuna.create_study(direction="maximize")
    searcher = StudySearcher(
        study, task.space, direction="maximize", n_trials_total=n_trials, seed=seed, sampler=sampler,
        n_startup_trials=n_startup_trials, trial_folder=lambda number: Path("lab/trials") / str(number), **settings,
    )  # fmt: skip
    built = schedulers.build(scheduler, direction="maximize", grace=grace, eta=eta, max_budget=EPOCHS)
    return Ours(study, searcher, built)


def _our_result(epoch: int, score: float, final: bool) -> dict[str, Any]:
    if math.isnan(score):
        return {"budget": epoch, "cause": "nan_loss", "message": "the loss is nan", "metrics": {}}
    return {"budget": epoch, "score": score, "metrics": {"score": score}, "final": final, "seconds": float(epoch)}


def ray_result(epoch: int, score: float, final: bool) -> dict[str, Any]:
    """A result as a trainable reports it to Ray Tune."""
    return {"training_iteration": epoch, "score": score, "done": final}


def stock(task: Task, seed: int, *, grace: int, eta: float, sampler: Any = None, schedule: bool = True) -> RayMethod:
    """Ray's OptunaSearch and ASHAScheduler as its documentation shows them; `sampler` replaces its multivariate TPE."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
    from ray.tune.search.optuna import OptunaSearch

    searcher = OptunaSearch(
        space=task.space.distributions(), metric="score", mode="max",
        **({"sampler": sampler} if sampler is not None else {"seed": seed}),
    )  # fmt: skip
    asha = ASHAScheduler(
        time_attr="training_iteration", metric="score", mode="max", max_t=EPOCHS, grace_period=grace,
        reduction_factor=eta,
    )  # fmt: skip
    return RayMethod(searcher, asha if schedule else FIFOScheduler(), lambda config: config, ray_result)
