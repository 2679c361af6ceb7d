"""Our Ray searcher over an Optuna study: it refuses what breaks a rule, learns from what was really trained, and
resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial
from ray.tune.search import Searcher

from search_spaces.feasible import feasible_sampler
from search_spaces.space import Space
from trainables.protocol import Cause
from tune_lora import agenda, store
from tune_lora.memory import Memory
from tune_lora.store import StudyRecord, TrialRecord
from tune_lora.trial_log import Result, TrialLog, create

CRASHES_IN_A_ROW = 3
LOSSES_IN_A_ROW = 10
"""What the infrastructure ends does not count, so where every worker is lost a study would never end."""
REFUSED_PRIORS = "refused_priors"
"""User attribute of the study: why each prior that breaks a rule was never trained."""


class StudySearcher(Searcher):
    """Suggests configurations and writes down what became of them.

    In this order: trials to continue, retries of what the infrastructure ended, priors this study has not begun, then
    the sampler. The study ends when `n_trials_total` trials count (all but those the infrastructure ended), when `stop`
    gives a reason, or after three crashes or ten lost workers in a row; trials that run are then left to finish. After
    `interrupt` running trials stay RUNNING in the store, to be continued by the next searcher on the study.

    The stored study is the truth; nothing here needs to be saved. `direction` is ``minimize`` or ``maximize``.
    `trial_folder` maps a number to ``<study>/trials/<number>``. `decide_at` are the budgets at which a scheduler
    decides. `retries` limits how often a trial is run again after the infrastructure ended it.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        *,
        direction: store.Direction,
        n_trials_total: int,
        trial_folder: Callable[[int], Path],
        sampler: str = "tpe",
        n_startup_trials: int = 10,
        seed: int = 0,
        priors: bool = True,
        decide_at: Sequence[int] = (),
        stop: Callable[[StudyRecord], str | None] = lambda _: None,
        retries: int = 2,
    ) -> None:
        super().__init__()
        self._study, self._space, self._total = study, space, n_trials_total
        self._folder, self._decide_at, self._stop, self._retries = trial_folder, tuple(decide_at), stop, retries
        self._seed, self._priors = seed, priors
        self._sampler = feasible_sampler(space, sampler, seed=seed, n_startup_trials=n_startup_trials)
        self._memory = Memory(space, self._sampler, direction)
        self._rejected_before: dict[str, int] = dict(study.user_attrs.get(store.REJECTIONS, {}))
        self._live: dict[str, TrialLog] = {}
        self._counted, self._crashes, self._losses, self._crash = 0, 0, 0, ""
        self.stop_reason, self.interrupted = "", False
        self._to_continue = agenda.settle(study, trial_folder)
        self._refuse_priors()

    # --- what next ---------------------------------------------------------------------------------------------------

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration; None while nothing may be begun, FINISHED when nothing will be.

        A configuration is ``{"params": resolved values, "trial": {"number", "folder", "seed", "decide_at"}}``.
        """
        if self.stop_reason or self.interrupted:
            return str(Searcher.FINISHED)
        if self._to_continue:  # begun already, so they end whatever the total is and however good the best
            return self._go_on(trial_id)
        if self._live and self._counted + len(self._live) >= self._total:
            return None  # one of them may have to be run again
        record = store.read(self._study)
        self._counted = sum(trial.counts for trial in record.trials)
        if self._has_enough(record):
            return str(Searcher.FINISHED)
        if self._counted + len(self._live) >= self._total:
            return None
        log = self._next(trial_id, record)
        self._live[trial_id] = log
        return self._configuration(log)

    def _go_on(self, tune_id: str) -> dict[str, Any]:
        stored = self._study.get_trials(deepcopy=False)
        self._memory.learn(stored)
        log = self._live[tune_id] = self._log(stored[self._to_continue.pop(0)])
        log.rename(tune_id)
        return self._configuration(log)

    def _next(self, tune_id: str, record: StudyRecord) -> TrialLog:
        stored = self._study.get_trials(deepcopy=False)
        self._memory.learn(stored)
        if due := agenda.retries_due(record.trials, self._retries):
            return self._retry(tune_id, due[0])
        if self._priors and (priors := self._runnable_priors(record)):
            params = self._space.complete(priors[0].params)
            return self._given(tune_id, params, self._space.resolve(params), f"{agenda.PRIOR}{priors[0].name}")
        params, drawn = self._memory.draw()
        self._store_rejections()
        return self._begin(
            tune_id, params, self._space.resolve(params), drawn, agenda.SAMPLER, self._seed + len(stored)
        )

    def _runnable_priors(self, record: StudyRecord) -> list[Any]:
        refused = self._study.user_attrs.get(REFUSED_PRIORS, {})
        return [prior for prior in agenda.priors_due(self._space, record.trials) if prior.name not in refused]

    def _retry(self, tune_id: str, failed: TrialRecord) -> TrialLog:
        # The same trial again: its seed as well.
        return self._given(tune_id, failed.params, failed.config, f"{agenda.RETRY}{failed.number}", failed.seed)

    def _given(
        self,
        tune_id: str,
        params: Mapping[str, Any],
        config: Mapping[str, Any],
        provenance: str,
        seed: int | None = None,
    ) -> TrialLog:
        within = self._space.within(params)
        number = len(self._study.get_trials(deepcopy=False))
        seed = self._seed + number if seed is None else seed
        return self._begin(tune_id, within, config, self._memory.adopt(within), provenance, seed)

    def _begin(
        self,
        tune_id: str,
        params: Mapping[str, Any],
        config: Mapping[str, Any],
        remembered: Trial,
        provenance: str,
        seed: int,
    ) -> TrialLog:
        attributes = {store.PROVENANCE: provenance, store.SEED: seed}
        trial = create(self._study, self._space, params, config=config, tune_id=tune_id, **attributes)
        self._memory.bind(trial.number, remembered)
        return self._log(trial)

    def _log(self, trial: FrozenTrial) -> TrialLog:
        return TrialLog(self._study, trial, self._folder(trial.number))

    def _configuration(self, log: TrialLog) -> dict[str, Any]:
        return {
            "params": dict(log.config),
            "trial": {
                "number": log.number,
                "folder": str(self._folder(log.number)),
                "seed": log.seed,
                "decide_at": list(self._decide_at),
            },
        }

    # --- when to stop ------------------------------------------------------------------------------------------------

    def _has_enough(self, record: StudyRecord) -> bool:
        if self._crashes >= CRASHES_IN_A_ROW:
            self._finish(f"crash: {CRASHES_IN_A_ROW} trials in a row crashed, the last with {self._crash}")
        elif self._losses >= LOSSES_IN_A_ROW:
            self._finish(f"infrastructure: the workers of {LOSSES_IN_A_ROW} trials in a row were lost")
        elif self._counted >= self._total:
            self._finish(f"all {self._total} trials have run")
        elif reason := self._stop(record):
            self._finish(reason)
        return bool(self.stop_reason)

    def _finish(self, reason: str) -> None:
        self.stop_reason = reason
        self._study.set_user_attr(store.STOP_REASON, reason)

    @property
    def is_unfinished(self) -> bool:
        """Whether trials run, or nothing has said yet why the study ends."""
        return bool(self._live) or not self.stop_reason

    def interrupt(self, reason: str) -> None:
        """The run ends now (timeout, ctrl-C): nothing new begins, and what runs stays RUNNING so that it can be
        continued.
        """
        if not self.interrupted:
            self.interrupted = True
            self._finish(reason)

    # --- what became of it -------------------------------------------------------------------------------------------

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Writes down one report; a report of a trial that is not ours, or without a metric, does no harm."""
        if (log := self._live.get(trial_id)) is not None:
            log.report(Result.of(result))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Writes down how a trial ended: complete, pruned, or failed with its cause. Interrupted trials stay
        RUNNING.
        """
        log = self._live.pop(trial_id, None)
        if log is None:
            return
        last = Result.of(result)
        log.report(last)
        ended = error or last.final or last.cause is not None
        if not ended and (self.interrupted or not result):
            return
        cause, message = _cause_of(last, error)
        self._counted += cause is not Cause.INFRASTRUCTURE
        self._crashes = self._crashes + 1 if cause is Cause.CRASH else 0
        self._losses = self._losses + 1 if cause is Cause.INFRASTRUCTURE else 0
        self._crash = message
        if cause is not None:
            log.fail(cause, message, last.metrics)
        elif last.final and last.score is not None:
            log.complete(last.score, last.metrics)
        else:
            log.prune()

    # --- what was refused --------------------------------------------------------------------------------------------

    def _refuse_priors(self) -> None:
        """Priors that break a rule are counted once in a study and never trained."""
        refused: dict[str, str] = dict(self._study.user_attrs.get(REFUSED_PRIORS, {}))
        for prior in self._space.priors if self._priors else ():
            broken = agenda.refusal(self._space, prior)
            if prior.run and broken and prior.name not in refused:
                refused[prior.name] = "; ".join(broken)
                rule = broken[0].partition(":")[0]
                self._rejected_before[rule] = self._rejected_before.get(rule, 0) + 1
        if refused != self._study.user_attrs.get(REFUSED_PRIORS, {}):
            self._study.set_user_attr(REFUSED_PRIORS, refused)
            self._store_rejections()

    @property
    def refused_priors(self) -> Mapping[str, str]:
        """Why each prior that breaks a rule is not trained, by its name."""
        found: Mapping[str, str] = self._study.user_attrs.get(REFUSED_PRIORS, {})
        return found

    def _store_rejections(self) -> None:
        names = {**self._rejected_before, **self._sampler.rejected}
        counts = {name: self._rejected_before.get(name, 0) + self._sampler.rejected[name] for name in names}
        if counts != self._study.user_attrs.get(store.REJECTIONS, {}):
            self._study.set_user_attr(store.REJECTIONS, counts)

    # --- Ray's book-keeping ------------------------------------------------------------------------------------------

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        """The space, metric and direction are the study's own."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is in its storage."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: a new searcher on the same study goes on."""


def _cause_of(last: Result, error: bool) -> tuple[Cause | None, str]:
    if last.cause is not None:
        return last.cause, last.message
    if error:
        return Cause.INFRASTRUCTURE, "the worker was lost"
    if last.score is not None and not last.has_finite_score:
        return Cause.NAN_LOSS, f"the score is {last.score} at budget {last.budget}"
    if last.final and last.score is None:
        return Cause.CRASH, "the last report has no score; its metric is not the study's"
    return None, ""
