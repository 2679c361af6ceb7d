"""What is written on a stored trial while it runs and when it ends: one place, so that every end is written whole."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from trainables.protocol import Cause
from tune_lora import incidents, store
from tune_lora.live_study import LiveStudy

REPORT_KEYS = ("metrics", "images")


@dataclass(frozen=True)
class Result:
    """One result of a Tune trial, flat or nested. `score` is absent between rungs; `cause` says that the trial
    failed. The first after a restart holds in `missed` those before it, and in `happened` lines about the restart.
    """

    budget: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    score: float | None = None
    final: bool = False
    cause: Cause | None = None
    message: str = ""
    seconds: float = 0.0
    missed: tuple[Result, ...] = ()
    happened: tuple[str, ...] = ()
    superseded: bool = False
    """The trial goes on in another process; there is nothing else in this result."""

    @classmethod
    def of(cls, result: Mapping[str, Any] | None) -> Result:
        """Reads Tune's mapping. Tune flattens what trainables report: ``metrics/val_loss``."""
        given = result or {}
        parts = {key: {**_nested(given, key), **_prefixed(given, f"{key}/")} for key in REPORT_KEYS}
        score, cause = given.get("score"), given.get("cause")
        return cls(
            budget=int(given.get("budget", 0)),
            score=None if score is None else float(score),
            final=bool(given.get("final", False)),
            cause=Cause(cause) if cause else None,
            message=str(given.get("message", "")),
            seconds=float(given.get("seconds", 0.0)),
            missed=tuple(cls.of(one) for one in given.get("missed", ())),
            happened=tuple(given.get("happened", ())),
            superseded=bool(given.get("superseded", False)),
            **parts,
        )

    @property
    def has_finite_score(self) -> bool:
        """Whether there is a score to decide on."""
        return self.score is not None and math.isfinite(self.score)


def ending(last: Result, error: bool, objectives: Sequence[str] = ()) -> tuple[Cause | None, str]:
    """Why a trial with this last result did not complete, and that in words; no cause where it did or was pruned.
    `error`: its worker is gone. `objectives`: metrics that the last report must hold, where there are several.
    """
    if last.cause is not None:
        return last.cause, last.message
    if error:
        return Cause.INFRASTRUCTURE, "the worker was lost"
    if last.score is not None and not last.has_finite_score:
        return Cause.NAN_LOSS, f"the score is {last.score} at budget {last.budget}"
    if last.final and last.score is None:
        return Cause.CRASH, "the last report has no score; its metric is not the study's"
    return _objectives_missing(last, objectives) if last.final else (None, "")


def _objectives_missing(last: Result, objectives: Sequence[str]) -> tuple[Cause | None, str]:
    for name in objectives:
        if name not in last.metrics:
            return Cause.CRASH, f"the last report has no {name}, which is an objective of the study"
        if not math.isfinite(last.metrics[name]):
            return Cause.NAN_LOSS, f"{name} is {last.metrics[name]} at budget {last.budget}"
    return None, ""


def _nested(given: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = given.get(key)
    return dict(value) if isinstance(value, Mapping) else {}


def _prefixed(given: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}


class TrialLog:
    """The stored trial `number` of a study. `folder` is the trial's own, below the study's.

    Where another driver has the trial by now, or somebody else has ended it, nothing is written, the study is told so
    once, and `is_let_go` says so from then on.
    """

    def __init__(self, live: LiveStudy, trial: FrozenTrial, folder: Path) -> None:
        self._live, self._trial = live, trial
        self._has_several = len(live.study.directions) > 1
        self._study_folder = folder.parents[1]
        self._owner, self._is_let_go = trial.user_attrs.get(store.DRIVER), False
        self.number, self.seed = trial.number, int(trial.user_attrs.get(store.SEED, 0))
        self.config: Mapping[str, Any] = trial.user_attrs.get(store.CONFIG, trial.params)
        known = store.record(trial)
        self._reported, self._scored = set(known.history), set(known.curve)
        self._last_metrics = dict(known.history.get(known.last_budget, {}))
        self._heard: set[str] = set()
        # A trial that goes on from a checkpoint goes on with its clock as well.
        self._seconds_before, self._seconds = 0.0, known.seconds

    def report(self, result: Result) -> None:
        """Writes one report, and those before it that were lost on their way. One whose budget is written already (the
        trial was restarted) changes nothing but what is missing.
        """
        for line in result.happened:
            if line not in self._heard:
                self._heard.add(line)
                incidents.note(self._live.study, line)
        for missed in result.missed:
            self._keep(missed)
        self._clock(result.seconds)
        self._keep(result)

    def _keep(self, result: Result) -> None:
        if result.cause is not None or result.budget <= 0:
            return
        attributes: dict[str, Any] = {}
        if result.budget not in self._reported:
            self._reported.add(result.budget)
            self._last_metrics = dict(result.metrics)
            attributes[f"{store.HISTORY_PREFIX}{result.budget}"] = self._last_metrics
            if result.images:
                images = {label: os.path.relpath(path, self._study_folder) for label, path in result.images.items()}
                attributes[f"{store.IMAGES_PREFIX}{result.budget}"] = images
        scores: dict[int, float] = {}
        if result.score is not None and result.has_finite_score and result.budget not in self._scored:
            self._scored.add(result.budget)
            if self._has_several:  # Optuna keeps no curve of a trial with several values, and its samplers expect none
                attributes[f"{store.CURVE_PREFIX}{result.budget}"] = result.score
            else:
                scores[result.budget] = result.score
            if not result.final:  # the end writes it anyway
                attributes[store.SECONDS] = self.seconds
        if attributes or scores:
            self._tell(lambda: self._live.write(self._trial, attributes, scores))

    @property
    def is_let_go(self) -> bool:
        """Whether the trial is not this driver's any more."""
        if self._live.trials[self.number].user_attrs.get(store.DRIVER) != self._owner:
            self.let_go("another driver goes on with it, and this one lets it go")
        return self._is_let_go

    def let_go(self, why: str) -> None:
        """From here on nothing is written on the trial."""
        if not self._is_let_go:
            self._is_let_go = True
            incidents.note(self._live.study, f"trial {self.number}: {why}")

    def _tell(self, write: Callable[[], None]) -> None:
        if self.is_let_go:
            return
        try:
            write()
        except UpdateFinishedTrialError:
            self._live.refresh()
            state = self._live.trials[self.number].state.name
            self.let_go(f"it was ended ({state}) by somebody else, and is let go")

    @property
    def seconds(self) -> float:
        """Time over all restarts, of a device's its own share."""
        return self._seconds_before + self._seconds

    def clocked(self, last: Result) -> Result:
        """A last result with the metrics of the clock (`store.CLOCK`) among its own."""
        clock = (self.seconds, self.seconds / max(1, last.budget))
        return replace(last, metrics={**dict(zip(store.CLOCK, clock, strict=True)), **last.metrics})

    def complete(self, values: Sequence[float], metrics: Mapping[str, float]) -> None:
        """The trial ran to its end, with one value an objective."""
        self._end(TrialState.COMPLETE, values, self._last(metrics))

    def prune(self) -> None:
        """The scheduler stopped the trial."""
        self._end(TrialState.PRUNED, None, {**self._last(self._last_metrics), store.CAUSE: Cause.PRUNED.value})

    def fail(self, cause: Cause, message: str, metrics: Mapping[str, float] | None = None) -> None:
        """The trial failed."""
        why = {store.CAUSE: cause.value, store.MESSAGE: message}
        self._end(TrialState.FAIL, None, {**self._last(metrics or self._last_metrics), **why})

    def rename(self, tune_id: str) -> None:
        """The trial goes on under another Tune id."""
        self._tell(lambda: self._live.write(self._trial, {store.TUNE_ID: tune_id}))

    def _end(self, state: TrialState, values: Sequence[float] | None, attributes: Mapping[str, Any]) -> None:
        self._tell(lambda: self._live.end(self._trial, state, values, attributes))

    def _clock(self, seconds: float) -> None:
        if seconds < self._seconds:  # a restarted worker counts from zero
            self._seconds_before += self._seconds
        self._seconds = seconds

    def _last(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        return {**({store.FINAL_METRICS: dict(metrics)} if metrics else {}), store.SECONDS: self.seconds}
