"""Our Ray searcher over an Optuna study: it refuses what breaks a rule, learns from what was really trained, and
resumes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from ray.tune.search import Searcher

from search_spaces.feasible import choose, feasible_sampler
from search_spaces.space import Space
from trainables import checkpoints
from trainables.protocol import Cause
from tune_lora import agenda, baseline, drivers, incidents, recoveries, store
from tune_lora.errors import StudyError
from tune_lora.knowledge import Advice, Knowledge, Reference
from tune_lora.live_study import LiveStudy
from tune_lora.memory import Memory
from tune_lora.progress import Progress
from tune_lora.records import RETRY, Objective
from tune_lora.refusals import Refusals
from tune_lora.store import TrialRecord
from tune_lora.trial_log import Result, TrialLog, ending
from tune_lora.unsaved import Unsaved

CONTINUED_PER_RETRY = 3
"""What Ray gives up goes on that often for each time that it may be run anew: an outage of minutes is waited out."""
CRASHES_IN_A_ROW = 3
LOSSES_IN_A_ROW = 10
"""What the infrastructure ends does not count, so where every worker is lost a study would never end."""


class StudySearcher(Unsaved, Searcher):
    """Suggests configurations and writes down what became of them.

    In this order: trials to continue, retries of what the infrastructure ended, references this study has not begun,
    then the sampler. The study ends when `n_trials_total` trials count (all but those the infrastructure ended), when
    `stop` gives a reason, or after three crashes or ten lost workers in a row; trials that run are then left to finish.
    After `interrupt` running trials stay RUNNING in the store, to be continued by the next searcher on the study.

    The study ends as well when a grid has no point left, once nothing runs that might have to be run again.

    The stored study is the truth; nothing here needs to be saved. `direction` is ``minimize`` or ``maximize``, that of
    the score. `objectives` are given where the study has several: the last report's metrics that its values are.
    `trial_folder` maps a number to ``<study>/trials/<number>``. `decide_at` are the budgets at which a scheduler
    decides. `retries` limits how often a trial is run again after the infrastructure ended it. `knowledge` is what the
    study starts with (default: what the space holds); with `guarded`, past results that mislead are let go. `horizon`
    gives a trial's longest budget from its parameters, where trials differ in it. `has_checkpoint` says of a trial's
    folder whether the trial could go on. `now` is a clock in seconds.

    A trial that Ray gives up, as its workers were lost, goes on after a pause where it has a checkpoint: three times as
    often as `retries` says, under its own number.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        *,
        direction: store.Direction,
        objectives: Sequence[Objective] = (),
        n_trials_total: int,
        trial_folder: Callable[[int], Path],
        sampler: str = "tpe",
        n_startup_trials: int = 10,
        seed: int = 0,
        knowledge: Knowledge | None = None,
        guarded: bool = True,
        decide_at: Sequence[int] = (),
        stop: Callable[[LiveStudy], str | None] = lambda _: None,
        retries: int = 2,
        horizon: Callable[[Mapping[str, Any]], int] | None = None,
        has_checkpoint: Callable[[Path], bool] = lambda folder: checkpoints.newest(folder) is not None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._study, self._space, self._total = study, space, n_trials_total
        self._distributions = space.distributions()
        self._has_checkpoint = has_checkpoint
        self._folder, self._decide_at, self._stop, self._retries = trial_folder, tuple(decide_at), stop, retries
        self._seed, knowledge = seed, Knowledge.of(space, direction) if knowledge is None else knowledge
        chosen = choose(sampler, space, max(1, len(objectives)))
        self.sampler_note = chosen.why and f"sampler: {chosen.why}"
        if self.sampler_note:
            study.set_user_attr(store.SAMPLER_NOTE, self.sampler_note)
        self._pack = int(study.user_attrs.get(store.PACKED, 1))
        self._driver = drivers.of(study)
        if self._driver is not None:
            self._driver.total, self._driver.draws_each_once = n_trials_total, chosen.name == "grid"
            seed = self._driver.seed(seed)
        self._sampler = feasible_sampler(
            space, chosen.name, seed=seed, n_startup_trials=n_startup_trials, horizon=horizon
        )
        directions = [objective.direction for objective in objectives] or [direction]
        self._memory = Memory(
            space, self._sampler, directions, Advice(study, space, knowledge, direction, guarded=guarded)
        )
        self._objectives = tuple(objective.name for objective in objectives)
        self._refusals = Refusals(study)
        self._logs: dict[str, TrialLog] = {}
        self._waiting = recoveries.Waiting(CONTINUED_PER_RETRY * retries, now)
        self._crashes, self._losses, self._crash = 0, 0, ""
        self.stop_reason, self.interrupted = "", False
        self.live = LiveStudy(study)
        self._to_continue = self._settle()
        self._progress, self._learnt = Progress(self.live), 0
        self._refusals.refuse(agenda.refusals(space, knowledge.references))
        self._references = [one for one in knowledge.references if one.provenance not in self._refusals.references]

    # --- what next ---------------------------------------------------------------------------------------------------

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration; None while nothing may be begun, FINISHED when nothing will be.

        A configuration is ``{"params": resolved values, "trial": {"number", "folder", "seed", "decide_at"}}``.
        """
        if self.interrupted or (self.stop_reason and not self._waiting and not self._to_continue):
            return str(Searcher.FINISHED)
        if self._driver is not None:
            self._see_others(self._driver)
        self._to_continue += self._waiting.due()
        if self._to_continue:  # begun already, so they end whatever the total is and however good the best
            return self._go_on(trial_id)
        return None if self.stop_reason else self._something_new(trial_id)

    def _something_new(self, trial_id: str) -> dict[str, Any] | str | None:
        self._progress.look()
        running = self._running
        if running and self._progress.counted + running >= self._total:
            return None  # one of them may have to be run again
        if self._has_enough():
            return None if self._waiting else str(Searcher.FINISHED)
        try:
            log = self._next(trial_id)
        except drivers.NotAdmitted:  # another driver was faster
            self.live.refresh()
            return None
        if log is None:
            return None if running else self._end("grid: every point that keeps the rules has been tried")
        self._logs[trial_id] = log
        return self._configuration(log)

    def _see_others(self, driver: drivers.Driver) -> None:
        if driver.is_due():
            self.live.refresh()
        if not self._to_continue:
            self._to_continue += self._settle()

    @property
    def _running(self) -> int:
        """Trials that run or wait to go on, those of other drivers included."""
        mine = len(self._logs) + len(self._waiting)
        if self._driver is None:
            return mine
        return max(mine, sum(trial.state == TrialState.RUNNING for trial in self.live.trials))

    def _settle(self) -> list[int]:
        if self._driver is None:
            return agenda.settle(self.live, self._folder, has_checkpoint=self._has_checkpoint)
        # There is room for one; what is left is for drivers that have room now.
        return agenda.settle(self.live, self._folder, self._driver.take, self._has_checkpoint, most=1)

    def _end(self, reason: str) -> str:
        self._finish(reason)
        return str(Searcher.FINISHED)

    def _go_on(self, tune_id: str) -> dict[str, Any] | None:
        self._learn()
        trial = self.live.trials[self._to_continue.pop(0)]
        if self._driver is not None and trial.user_attrs.get(store.DRIVER) != self._driver.name:
            return None  # it waited here for so long that another driver took it
        log = self._log(trial)
        log.rename(tune_id)
        if log.is_let_go:
            return None
        self._logs[tune_id] = log
        line = f"trial {log.number}: {self._waiting.why(log.number)}; it goes on from its last checkpoint"
        incidents.note(self.live.study, line)
        return self._configuration(log)

    def _learn(self) -> None:
        changed, self._learnt = self.live.since(self._learnt)
        self._memory.learn(self.live.trials, changed)

    def _next(self, tune_id: str) -> TrialLog | None:
        self._learn()
        if due := agenda.retries_due(self._progress.lost_and_retried, self._retries):
            return self._retry(tune_id, due[0])
        if references := agenda.references_due(self._references, self._progress.begun):
            return self._refer(tune_id, references[0])
        if self._memory.is_exhausted:
            return None
        params, drawn = self._memory.draw()
        self._refusals.count(self._sampler.rejected)
        return self._begin(
            tune_id, params, self._space.resolve(params), drawn, agenda.SAMPLER, self._seed + len(self.live.trials)
        )

    def _refer(self, tune_id: str, reference: Reference) -> TrialLog:
        params = self._space.complete(reference.params)
        config, notes = self._space.resolve(params), list(reference.notes)
        return self._given(tune_id, params, config, reference.provenance, reference.seed, notes)

    def _retry(self, tune_id: str, failed: TrialRecord) -> TrialLog:
        # The same trial again: its seed as well.
        return self._given(tune_id, failed.params, failed.config, f"{RETRY}{failed.number}", failed.seed)

    def _given(
        self,
        tune_id: str,
        params: Mapping[str, Any],
        config: Mapping[str, Any],
        provenance: str,
        seed: int | None = None,
        notes: Sequence[str] = (),
    ) -> TrialLog:
        within = self._space.within(params)
        seed = self._seed + len(self.live.trials) if seed is None else seed
        return self._begin(tune_id, within, config, self._memory.adopt(within), provenance, seed, notes)

    def _begin(
        self,
        tune_id: str,
        params: Mapping[str, Any],
        config: Mapping[str, Any],
        remembered: Trial,
        provenance: str,
        seed: int,
        notes: Sequence[str] = (),
    ) -> TrialLog:
        attributes = {
            store.CONFIG: dict(config),
            store.TUNE_ID: tune_id,
            store.PROVENANCE: provenance,
            store.SEED: seed,
            **({store.NOTES: list(notes)} if notes else {}),
            **({store.DRIVER: self._driver.name} if self._driver is not None else {}),
            **({store.PACK: self._pack} if self._pack > 1 else {}),
        }
        try:
            trial = self.live.create(params, {name: self._distributions[name] for name in params}, attributes)
        except drivers.NotAdmitted:
            self._memory.forget(remembered)
            raise
        self._memory.bind(trial.number, remembered)
        return self._log(trial)

    def _log(self, trial: FrozenTrial) -> TrialLog:
        return TrialLog(self.live, trial, self._folder(trial.number))

    def _configuration(self, log: TrialLog) -> dict[str, Any]:
        is_baseline = baseline.is_one(log.number, self._provenance)
        return {
            "params": dict(log.config),
            "trial": {
                "number": log.number,
                "folder": str(self._folder(log.number)),
                "seed": log.seed,
                "decide_at": list(self._decide_at),
                **({"spared": True} if is_baseline else {}),  # never pruned: everything is told in percent of it
            },
        }

    def _provenance(self, number: int) -> str:
        return self.live.of(number).provenance if number < len(self.live.trials) else ""

    # --- when to stop ------------------------------------------------------------------------------------------------

    def _has_enough(self) -> bool:
        if self._crashes >= CRASHES_IN_A_ROW:
            self._finish(f"crash: {CRASHES_IN_A_ROW} trials in a row crashed, the last with {self._crash}")
        elif self._losses >= LOSSES_IN_A_ROW:
            self._finish(f"infrastructure: the workers of {LOSSES_IN_A_ROW} trials in a row were lost")
        elif self._progress.counted >= self._total:
            self._finish(f"all {self._total} trials have run")
        elif reason := self._stop(self.live):
            self._finish(reason)
        return bool(self.stop_reason)

    def _finish(self, reason: str) -> None:
        self.stop_reason = reason
        self._study.set_user_attr(store.STOP_REASON, reason)

    @property
    def is_unfinished(self) -> bool:
        """Whether trials run, or nothing has said yet why the study ends."""
        return bool(self._logs) or self.waits or not self.stop_reason

    @property
    def waits(self) -> bool:
        """Whether a trial will go on after a pause, so that there is more to suggest even where nothing runs."""
        return bool(self._waiting)

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
        if (log := self._logs.get(trial_id)) is not None:
            log.report(Result.of(result))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Writes down how a trial ended: complete, pruned, or failed with its cause. Interrupted trials stay
        RUNNING, and so does one that goes on elsewhere.
        """
        log = self._logs.pop(trial_id, None)
        if log is None:
            return
        last = Result.of(result)
        log.report(last)
        if last.superseded:
            log.let_go("another process goes on with it, and this one lets it go")
        if log.is_let_go or (error and self._can_go_on(log)):
            return
        ended = error or last.final or last.cause is not None
        if not ended and (self.interrupted or not result):
            return
        last = log.clocked(last) if self._objectives and last.final else last
        cause, message = ending(last, error, self._objectives)
        self._crashes = self._crashes + 1 if cause is Cause.CRASH else 0
        self._losses = self._losses + 1 if cause is Cause.INFRASTRUCTURE else 0
        self._crash = message
        if cause is not None:
            log.fail(cause, message, last.metrics)
        elif last.final and last.score is not None:
            log.complete([last.metrics[name] for name in self._objectives] or [last.score], last.metrics)
        else:
            log.prune()

    def _can_go_on(self, log: TrialLog) -> bool:
        """Whether a trial that Ray gives up stays RUNNING, to go on after a pause or with the next driver."""
        if self.stop_reason and not self.interrupted:  # Tune asks for nothing more
            return False
        try:
            found = self._has_checkpoint(self._folder(log.number))
        except (OSError, StudyError):  # what keeps its checkpoints is away, which may be why its workers were lost
            found = True
        return found and (self.interrupted or self._waiting.put(log.number))

    def is_let_go(self, trial_id: str) -> bool:
        """Whether a running trial is another driver's by now, or was ended by somebody else: it is trained in vain."""
        log = self._logs.get(trial_id)
        return log is not None and log.is_let_go

    @property
    def refused_references(self) -> Mapping[str, str]:
        """Why each reference that breaks a rule is not trained, by its provenance."""
        return self._refusals.references

    # --- Ray's book-keeping ------------------------------------------------------------------------------------------

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        """The space, metric and direction are the study's own."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is in its storage."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: a new searcher on the same study goes on."""
