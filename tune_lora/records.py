"""What every reader of a study sees: typed records of it and of its trials, and what is best among them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from trainables.protocol import Cause
from tune_lora import pareto as geometry
from tune_lora.incidents import Incident

Direction = Literal["minimize", "maximize"]
State = Literal["complete", "pruned", "failed", "running", "waiting"]

CLOCK = ("train_seconds", "train_seconds_per_epoch")
"""Metrics that every trainer has, because the study measures them: time over all restarts, its own share where trials
share a device's; known at the end of a trial."""

PRIOR, RETRY = "prior:", "retry:"
"""How the provenance begins of a trial that somebody named, and of one that runs another again."""


@dataclass(frozen=True)
class Objective:
    """One of several things a study is about: a metric and which way is better."""

    name: str
    direction: Direction = "minimize"

    def loss(self, value: float) -> float:
        """The value so that lower is better."""
        return value if self.direction == "minimize" else -value


@dataclass(frozen=True)
class TrialRecord:
    """One trial as every reader sees it.

    `value` is the final score of a completed trial; None otherwise, and where the study has several objectives: their
    values are in `values` (one an objective; empty unless completed). `params` are the sampled values, `config` all
    resolved ones (derived and fixed included; equal to `params` plus what a prior set outside the space). `curve` maps
    budget to the score that the scheduler saw there; `history` maps budget to all metrics of that report. `images` maps
    budget to labelled paths relative to the study's folder. `seconds` is the time that a device spent on it: all that
    passed where it trained alone, its own share where up to `pack` trials shared a base.
    """

    number: int
    state: State
    value: float | None
    params: Mapping[str, Any]
    config: Mapping[str, Any]
    provenance: str = "sampler"
    notes: tuple[str, ...] = ()
    cause: Cause | None = None
    message: str = ""
    seed: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: Mapping[int, float] = field(default_factory=dict)
    history: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    images: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    seconds: float = 0.0
    started: dt.datetime | None = None
    finished: dt.datetime | None = None
    values: tuple[float, ...] = ()
    pack: int = 1

    @property
    def counts(self) -> bool:
        """Whether it counts towards the study's total: it ended, and not through the infrastructure."""
        return self.state in ("complete", "pruned", "failed") and self.cause is not Cause.INFRASTRUCTURE

    @property
    def last_budget(self) -> int:
        """Budget of the newest report; 0 before the first."""
        return max(self.history, default=0)


@dataclass(frozen=True)
class StudyRecord:
    """A study and all its trials, in order of their numbers.

    `direction` is that of the score which schedulers see. `objectives` are there where a study has several, and empty
    where it has one. `score_name` is what its values are called. `incidents` are what happened to it as it ran.
    `ratings` are what people preferred of its pictures (`tune_lora.preferences.of`).
    """

    name: str
    direction: Direction
    trials: tuple[TrialRecord, ...]
    spec: Mapping[str, Any] = field(default_factory=dict)
    rejections: Mapping[str, int] = field(default_factory=dict)
    stop_reason: str = ""
    baseline: Mapping[str, float] = field(default_factory=dict)
    base_images: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    verification: Mapping[str, Any] = field(default_factory=dict)
    knowledge: tuple[Mapping[str, Any], ...] = ()
    carried: tuple[Mapping[str, Any], ...] = ()
    let_go: Mapping[str, str] = field(default_factory=dict)
    objectives: tuple[Objective, ...] = ()
    score_name: str = "score"
    incidents: tuple[Incident, ...] = ()
    ratings: tuple[Mapping[str, Any], ...] = ()

    @property
    def has_several(self) -> bool:
        """Whether the study has several objectives."""
        return len(self.objectives) > 1

    def ranked(self) -> list[TrialRecord]:
        """Completed trials, best first; ties by number.

        With several objectives: the Pareto front before the others, and within both the fairest trade first, which is
        the trial nearest to the best of every objective at once (`tune_lora.pareto.distances`).
        """
        return list(self._ranked)

    @cached_property
    def _ranked(self) -> list[TrialRecord]:
        done = completed(self)
        if not self.has_several:
            sign = 1 if self.direction == "minimize" else -1
            return sorted(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number))
        far = dict(zip((trial.number for trial in done), geometry.distances(losses(self, done)), strict=True))
        leading = {trial.number for trial in pareto(self)}
        return sorted(done, key=lambda trial: (trial.number not in leading, far[trial.number], trial.number))

    @cached_property
    def provenances(self) -> Mapping[int, str]:
        """Where each trial is from, by its number."""
        return {trial.number: trial.provenance for trial in self.trials}

    def origin(self, trial: TrialRecord) -> str:
        """Where a trial is from, by way of those that it runs again."""
        return origin_of(trial.number, lambda number: self.provenances.get(number, ""))

    @cached_property
    def _completed(self) -> list[TrialRecord]:
        known = (trial for trial in self.trials if trial.state == "complete")
        if self.has_several:
            return [trial for trial in known if len(trial.values) == len(self.objectives)]
        return [trial for trial in known if trial.value is not None]

    @property
    def best(self) -> TrialRecord | None:
        """The completed trial with the best score; with several objectives the member of the Pareto front that is the
        fairest trade between them (`ranked`).
        """
        return next(iter(self._ranked), None)

    def count(self, state: State) -> int:
        """Number of trials in a state."""
        return sum(trial.state == state for trial in self.trials)

    @cached_property  # asked for each trial by whoever draws or writes tables
    def parameter_names(self) -> tuple[str, ...]:
        """Names that any trial sampled, in order of first appearance."""
        return tuple(dict.fromkeys(name for trial in self.trials for name in trial.params))

    def tried(self, trial: TrialRecord) -> dict[str, Any]:
        """What a trial trained with, under the sampled names only.

        A reference configuration may lie outside the space: such a value is in `config` but not in `params`, and still
        is what was tried. A conditional parameter that the trial does not have is absent.
        """
        known = {**trial.config, **trial.params}
        return {name: known[name] for name in self.parameter_names if name in known}

    @property
    def untrained(self) -> float | None:
        """What the untrained base is worth by the study's own measure; None where that was not measured."""
        return self.baseline.get(self.score_name)

    @property
    def untrained_name(self) -> str:
        """What `untrained` is the worth of, in words."""
        return str(self.calibration.get("baseline", "untrained base"))

    @property
    def is_uncalibrated(self) -> bool:
        """Whether the study says that its scores do not compare with the user's numbers."""
        return self.calibration.get("calibrated") is False

    @property
    def verified(self) -> TrialRecord | None:
        """The trial that did best when the leaders were measured again with other seeds (`tune_lora.verify`)."""
        named = self.verification.get("trial")
        return next((trial for trial in self._completed if trial.number == named), None)

    @property
    def overtaken_by(self) -> TrialRecord | None:
        """The search's best, where it has come since the leaders were verified and leads all of them."""
        verified, best = self.verified, self.best
        if verified is None or best is None:
            return None
        known = {verified.number, *(one["trial"] for one in self.verification.get("candidates", ()))}
        known |= {int(number) for number in self.verification.get("failed", ())}
        return None if best.number in known else best

    @property
    def winner(self) -> TrialRecord | None:
        """The trial to recommend: the verified one where there is one, else the search's best."""
        return self.verified or self.best

    @property
    def winner_value(self) -> float | None:
        """What the winner is worth: as it was measured again where it was, else its value in the search."""
        winner = self.winner
        known = {one["trial"]: one["mean"] for one in self.verification.get("candidates", ())}
        return None if winner is None else known.get(winner.number, winner.value)

    @property
    def winner_in_the_search(self) -> float | None:
        """What the winner is worth beside values of the search: its own there where it was judged by new prompts, which
        move all; where it was trained again, by the search's own measure, what that gave."""
        winner = self.winner
        if winner is None or self.verification.get("kind") != "checkpoint":
            return self.winner_value
        return winner.value

    @property
    def winner_beside_untrained(self) -> tuple[float | None, float | None, str]:
        """What the winner and the untrained base are worth by the same measure, and which one that is where there are
        two: new prompts move both."""
        again = self.verification.get("untrained")
        if self.verified is None:
            return self.winner_value, self.untrained, ""
        if again:
            return self.winner_value, float(again["mean"]), "by prompts and seeds that the search never saw"
        where = "in the search" if self.verification.get("kind") == "checkpoint" else ""
        return self.winner_in_the_search, self.untrained, where

    @property
    def is_verified(self) -> bool:
        """Whether the winner was measured again with other seeds, beside all that could be better by the search."""
        return self.verified is not None and self.overtaken_by is None


def origin_of(number: int, provenance: Callable[[int], str]) -> str:
    """Where a trial is from; one that runs another again, because the infrastructure had ended it, is from where that
    was. `provenance` is that of the trial of a number, empty where there is none."""
    origin = provenance(number)
    while origin.startswith(RETRY):
        origin = provenance(int(origin.removeprefix(RETRY)))
    return origin


def completed(record: StudyRecord) -> list[TrialRecord]:
    """The completed trials whose worth is known, by number."""
    return list(record._completed)


def losses(record: StudyRecord, trials: Sequence[TrialRecord]) -> list[tuple[float, ...]]:
    """One point a completed trial, lower better in each objective."""
    return [
        tuple(objective.loss(value) for objective, value in zip(record.objectives, trial.values, strict=True))
        for trial in trials
    ]


def pareto(record: StudyRecord) -> list[TrialRecord]:
    """The Pareto front by number: the completed trials that no other one beats in an objective without losing in
    another. Empty for a study with one objective.
    """
    if not record.has_several:
        return []
    done = completed(record)
    return [done[index] for index in geometry.front(losses(record, done))]


def for_objective(record: StudyRecord, index: int) -> StudyRecord:
    """The study as if it were about one of its objectives: what draws and ranks single scores reads it as any other."""
    objective = record.objectives[index]

    def alone(trial: TrialRecord) -> TrialRecord:
        value = trial.values[index] if trial.values else None
        curve = {at: told[objective.name] for at, told in trial.history.items() if objective.name in told}
        return replace(trial, value=value, values=() if value is None else (value,), curve=curve)

    baseline = record.baseline.get(objective.name)
    return replace(
        record,
        direction=objective.direction,
        trials=tuple(alone(trial) for trial in record.trials),
        baseline={} if baseline is None else {objective.name: baseline},
        objectives=(),
        score_name=objective.name,
    )
