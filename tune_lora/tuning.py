"""The search itself: Ray Tune with the study's searcher, scheduler, trainer and stop conditions."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from ray import tune
from ray.tune import Stopper
from ray.tune.schedulers import TrialScheduler
from ray.tune.stopper import CombinedStopper

from trainables.mirrored import mirrored
from trainables.parallel import on_devices
from trainables.protocol import FOLD_SCORE
from trainables.ray_adapter import trainable_for
from trainables.shared_results import on_shared
from tune_lora import drivers, hosted, incidents, mirroring, recoveries, registered, store, termination, trainers
from tune_lora import scheduler as schedulers
from tune_lora.build import Plan
from tune_lora.limited import Limited
from tune_lora.live_study import LiveStudy
from tune_lora.searcher import StudySearcher
from tune_lora.stopping import Rules, TimeoutStopper
from tune_lora.tracking import Tracker
from tune_lora.unsaved import Unsaved

if TYPE_CHECKING:
    from tune_lora.placing import Slots
    from tune_lora.study import View

LOOK_EVERY_SECONDS = 0.5
LOOKING_SHARE = 0.05
"""Of the driver's time, at most: a look at a study of thousands of trials is less frequent."""
USERS_TARGET = 0.10


def tune_study(
    study: optuna.Study,
    ready: Plan,
    placed: Slots,
    total: int,
    *,
    tracker: Tracker,
    view: View,
) -> None:
    """Runs trials until the study has `total` of them or a stop condition holds; needs an open Ray session."""
    spec = ready.spec
    study.set_user_attr(store.STOP_REASON, "")
    searcher = _searcher(study, ready, total)
    live = searcher.live
    if searcher.sampler_note:
        view.note(searcher.sampler_note)
    scheduler = _scheduler(live, ready, view)
    pauses = isinstance(scheduler, schedulers.PausingAsha)
    stopper = TimeoutStopper(spec.budget.timeout_hours, searcher)
    ending = _Terminated(searcher)
    with hosted.training(on_devices(ready.trainer, spec.resources.together), placed) as trains:
        trainable = trainable_for(trains.trainer, spec.objective.pruned_on.name, placed.threads)
        tuner = tune.Tuner(
            tune.with_resources(
                mirrored(on_shared(trainable, placed.mark), mirroring.of(study, spec)),
                trains.asked,
            ),
            tune_config=tune.TuneConfig(
                search_alg=schedulers.Slots(searcher, scheduler, trains.limit)
                if pauses
                else Limited(searcher, trains.limit),
                scheduler=scheduler,
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=_run_config(
                study,
                ready,
                CombinedStopper(stopper, ending),
                [
                    _Watcher(live, total, tracker, view),
                    _Recoveries(study, ready.trainer.budget_unit, view, is_mirrored=spec.resources.mirror is not None),
                ],
            ),
        )
        with termination.noticed() as ending.asked, registered.remembered():
            tuner.fit()
    if searcher.is_unfinished:  # Tune answers ctrl-C by ending early, without a word
        searcher.interrupt(f"{store.INTERRUPTED}; what was running goes on when the study does")


def _run_config(study: optuna.Study, ready: Plan, stop: Stopper, callbacks: list[tune.Callback]) -> tune.RunConfig:
    spec = ready.spec
    return tune.RunConfig(
        name="ray" if (driver := drivers.of(study)) is None else f"ray-{driver.name}",
        storage_path=str((spec.folder / "logs").absolute()),
        stop=stop,
        callbacks=callbacks,
        failure_config=tune.FailureConfig(max_failures=spec.budget.retries),
        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        verbose=0,
    )


def _searcher(study: optuna.Study, ready: Plan, total: int) -> StudySearcher:
    spec = ready.spec
    trials = (spec.folder / "trials").absolute()

    return StudySearcher(
        study,
        ready.space,
        direction=spec.objective.pruned_on.direction,
        objectives=spec.objective.several,
        n_trials_total=total,
        sampler=spec.search.sampler,
        n_startup_trials=spec.search.n_startup_trials,
        seed=spec.search.seed,
        knowledge=ready.knowledge,
        guarded=spec.search.guard,
        trial_folder=lambda number: trials / str(number),
        decide_at=_decide_at(ready),
        stop=Rules(plateau=spec.budget.plateau, n_startup=spec.search.n_startup_trials, target=_target(study, ready)),
        retries=spec.budget.retries,
        horizon=lambda params: ready.trainer.horizon(ready.space.resolve(params)),
        has_checkpoint=mirroring.has_checkpoint(spec),
    )


def _target(study: optuna.Study, ready: Plan) -> float | None:
    """The score at which the study stops: what was asked for, else the user's own 0.10 where the score is on their
    scale."""
    if ready.spec.budget.target is not None:
        return ready.spec.budget.target
    calibration = study.user_attrs.get(store.CALIBRATION, {})
    origins = set(calibration.get("targets_from", {}).values())
    on_the_users_scale = calibration.get("calibrated", False) and origins == {"spec"}
    objective = ready.spec.objective
    is_the_score = objective.metric == "score" and not objective.several
    return USERS_TARGET if on_the_users_scale and is_the_score else None


def _decide_at(ready: Plan) -> tuple[int, ...]:
    chosen = ready.spec.scheduler
    return schedulers.decides_at(chosen.name, max_budget=_longest(ready), **chosen.settings())


def _longest(ready: Plan) -> int:
    """The longest budget of any trial that the space allows, or that is one of its reference configurations."""
    space = ready.space
    priors = [space.resolve(space.complete(prior.params)) for prior in space.priors]
    return max(map(ready.trainer.horizon, [*space.examples(), *priors]))


def _scheduler(live: LiveStudy, ready: Plan, view: View) -> TrialScheduler:
    chosen, score = ready.spec.scheduler, ready.spec.objective.pruned_on
    folded = trainers.is_cross_validated(ready.spec)
    settings = chosen.settings(by_fold=folded)
    if settings.get("watch") == score.name:
        settings["watch"] = schedulers.SCORE
    built = schedulers.build(
        chosen.name,
        direction=score.direction,
        max_budget=_longest(ready),
        # A pruner that looks at every report needs what every report has.
        in_every_report="val_loss" if score.name == "score" else None,
        by_fold=FOLD_SCORE if folded else None,
        say=_Said(live.study, view),
        **settings,
    )
    if hasattr(built, "replay"):
        built.replay(live.record().trials)
    return built


class _Said(Unsaved):
    """What the scheduler finds out: kept with the study and shown."""

    def __init__(self, study: optuna.Study, view: View) -> None:
        self._study, self._view = study, view

    def __call__(self, line: str) -> None:
        self._study.set_user_attr(store.SCHEDULER_NOTE, line)
        self._view.note(line)


class _Terminated(Unsaved, Stopper):
    """Ends the run after a SIGTERM; what runs stays RUNNING. Stops single trials that are no longer this driver's."""

    def __init__(self, searcher: StudySearcher) -> None:
        self._searcher = searcher
        self.asked: Callable[[], bool] = lambda: False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002  # Ray's signature
        return self._searcher.is_let_go(trial_id)

    def stop_all(self) -> bool:
        if self.asked():
            reason = f"{store.INTERRUPTED} by {termination.SIGTERM}; what was running goes on when the study does"
            self._searcher.interrupt(reason)
        return self.asked()


class _Recoveries(Unsaved, tune.Callback):
    """Says which trials lost their worker and go on."""

    def __init__(self, study: optuna.Study, unit: str, view: View, *, is_mirrored: bool) -> None:
        self._study, self._unit, self._view, self._is_mirrored = study, unit, view, is_mirrored

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        why, told = recoveries.loss(Path(trial.error_file).read_text(errors="replace")), trial.config["trial"]
        line = recoveries.line(told["number"], why, Path(told["folder"]), self._unit)
        if self._is_mirrored:  # its checkpoints are not in the driver's folder
            line = f"trial {told['number']}: {why}; it goes on from its mirror"
        incidents.note(self._study, line)
        self._view.note(line)


class _Watcher(Unsaved, tune.Callback):
    """Shows the study to its view, and its trials to the tracker."""

    def __init__(self, live: LiveStudy, total: int, tracker: Tracker, view: View) -> None:
        self._live, self._total, self._tracker, self._view = live, total, tracker, view
        _, self._mark = live.since(0)
        self._said = set(live.study.user_attrs.get(store.LET_GO, {}))
        self._next_look = 0.0
        driver = drivers.of(live.study)
        self._mine = None if driver is None else driver.name

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002  # Ray's
        if (now := time.monotonic()) >= self._next_look:
            self._look()
            self._next_look = now + max(LOOK_EVERY_SECONDS, (time.monotonic() - now) / LOOKING_SHARE)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        # Tune keeps statistics of every metric of every trial for its own record of the run, which nobody reads: half
        # of what a study of thousands of trials would hold in memory, and a third of the driver's time at its end.
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()
        trial.run_metadata.invalidate_cache()

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:  # noqa: ARG002  # Ray's
        self._look()

    def _look(self) -> None:
        record = self._live.record()
        for source in record.let_go.keys() - self._said:
            self._said.add(source)
            self._view.note(record.let_go[source])
        changed, self._mark = self._live.since(self._mark)
        # Of several drivers each shows its own trials.
        mine = [one for one in changed if self._mine is None or one.user_attrs.get(store.DRIVER) == self._mine]
        self._tracker.look(record, [self._live.of(trial.number) for trial in mine])
        self._view.update(record, total=self._total)
