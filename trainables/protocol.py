"""The seam between one trial's training and everything else: a trainer is a generator of Reports.

A trainer pauses at each `yield`, which is exactly where a scheduler decides. It releases what it holds in `finally`,
so that closing the generator stops it. It is tested with ``list(trainer.run(context))``; no Ray needed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

Params = Mapping[str, Any]
"""A resolved configuration: sampled, derived and fixed values by name."""


FOLD_SCORE = "fold_score"
"""The metric of a cross-validated trainer at the end of each fold: the objective in it alone, lower is better."""


class Cause(enum.StrEnum):
    """Why a trial ended other than by completing."""

    PRUNED = "pruned"
    NAN_LOSS = "nan_loss"
    GRADIENT_EXPLOSION = "gradient_explosion"
    BLACK_IMAGES = "black_images"
    OUT_OF_MEMORY = "out_of_memory"
    TRIAL_TIMEOUT = "trial_timeout"
    INFRASTRUCTURE = "infrastructure"
    CRASH = "crash"

    @property
    def is_fault_of_configuration(self) -> bool:
        """Whether the sampler should learn from it."""
        return self in _FAULTS_OF_CONFIGURATION


_FAULTS_OF_CONFIGURATION = frozenset(
    {Cause.NAN_LOSS, Cause.GRADIENT_EXPLOSION, Cause.BLACK_IMAGES, Cause.OUT_OF_MEMORY, Cause.TRIAL_TIMEOUT}
)


class TrialFailure(Exception):
    """A trial that cannot go on, with its cause. Raised by trainers, never shown as a traceback."""

    def __init__(self, cause: Cause, message: str, metrics: Mapping[str, float] | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.metrics = dict(metrics or {})

    def __reduce__(self) -> tuple[type[TrialFailure], tuple[Cause, str, dict[str, float]]]:
        # Exceptions are pickled with what they printed, which is not what this one is made of.
        return type(self), (self.cause, self.message, self.metrics)


@dataclass(frozen=True)
class Report:
    """What a trainer says at one point of its budget.

    `budget` counts what has been spent (epochs, steps or folds; 1 is the first report). `metrics` holds finite
    floats; a metric that was not measured at this point is absent, never NaN. `save` writes all that is needed to
    continue from here into an existing folder (None: this trainer cannot be continued). `images` are files worth
    looking at, by label. `final` marks the last report: the trial is complete. `seconds` is the time of the device
    that went into this report, where that is another than the time that passed. `happened` are lines about
    what befell the trial on the way, and is no fault of its own.
    """

    budget: int
    metrics: Mapping[str, float]
    save: Callable[[Path], None] | None = None
    images: Mapping[str, Path] = field(default_factory=dict)
    final: bool = False
    seconds: float | None = None
    happened: Sequence[str] = ()


class Collective(Protocol):
    """The processes that train one trial together, each with its part of every micro-batch. Rank 0 reports."""

    rank: int
    size: int

    def sum_gradients(self, parameters: Sequence[Any]) -> None:
        """Replaces each gradient by its sum over the group."""
        ...

    def sum(self, value: float) -> float:
        """The sum of a number over the group."""
        ...


@dataclass(frozen=True)
class TrialContext:
    """All that one trial gets.

    `folder` is the trial's own and exists. `decide_at` are the budgets at which somebody decides on this trial
    (rungs); the costly measures are due there and at the end. `restore` is a folder that an earlier report's `save`
    wrote. `shared` outlives the trial: what is put there (a loaded base model, caches) serves the next trial on the
    same worker. `group` are the processes that train this trial together; None is this process alone.
    """

    params: Params
    folder: Path
    seed: int = 0
    decide_at: frozenset[int] = frozenset()
    restore: Path | None = None
    threads: int = 1
    shared: dict[str, Any] = field(default_factory=dict)
    group: Collective | None = None


@dataclass(frozen=True)
class Stepped:
    """What a step of a pack brought, by slot: the losses of its micro-batches, reports that were due, ends, and the
    seconds of the device that each slot took of the step, its report included."""

    losses: dict[int, float] = field(default_factory=dict)
    reports: dict[int, Report] = field(default_factory=dict)
    failures: dict[int, TrialFailure] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)


class Pack(Protocol):
    """Trials that train together on one base: they join, step and leave in any order."""

    @property
    def slots(self) -> tuple[int, ...]:
        """Who is seated."""
        ...

    def differences(self, context: TrialContext) -> list[str]:
        """Why a trial cannot join, one line each; empty where it can."""
        ...

    def weight(self, context: TrialContext) -> float:
        """What a micro-batch of a trial costs beside another's: only proportions count."""
        ...

    def join(self, context: TrialContext) -> int:
        """Seats a trial, which begins with the next step, or goes on from its context's checkpoint; returns its slot.

        Raises:
            InputErrors: it cannot share this base; every reason.
            TrialFailure: it cannot be trained.
        """
        ...

    def step(self, resting: frozenset[int] = frozenset()) -> Stepped:
        """One micro-batch of every trial that is neither complete nor `resting`. A trial that fails is no longer
        seated.

        Raises:
            TrialFailure: something befell the pack as a whole, such as a lack of memory; it is to be closed.
        """
        ...

    def leave(self, slot: int) -> None:
        """Takes a trial out; the others notice nothing."""
        ...

    def close(self) -> None:
        """Takes everybody out."""
        ...


class Trainer(Protocol):
    """How one trial trains. Must be picklable: Ray sends it to its workers."""

    @property
    def budget_unit(self) -> str:
        """``epoch``, ``step`` or ``fold``."""
        ...

    def horizon(self, params: Params) -> int:
        """Budget at which a trial with these parameters is complete."""
        ...

    def check(self, params: Params) -> list[str]:
        """What is wrong with a configuration, one line each, before anything is loaded."""
        ...

    def run(self, context: TrialContext) -> Generator[Report, None, None]:
        """Trains; yields a Report per budget unit, the last one `final`. Raises TrialFailure with a cause."""
        ...


@runtime_checkable
class Fingerprinted(Protocol):
    """A trainer that knows its data again. A study whose data have another fingerprint than when it began does not go
    on."""

    def fingerprint(self) -> str:
        """A digest of the content that trials learn from and are judged by, wherever it lies
        (`trainables.fingerprints`). Takes about as long as reading the data once, and loads no model."""
        ...


@runtime_checkable
class Preparing(Protocol):
    """A trainer with something to do once per study, before the first trial."""

    def prepare(self, context: TrialContext) -> dict[str, Any]:
        """Returns ``{"baseline": metrics, "calibration": {...}, "images": {label: path}}``. What the baseline is stands
        in the calibration as ``baseline``, unless it is the untrained base."""
        ...


@runtime_checkable
class Packing(Protocol):
    """A trainer that can train several trials on one base together."""

    def pack(self, context: TrialContext) -> Pack:
        """An empty pack that a trial such as this can join. What it loads is kept in the context's `shared`."""
        ...


@runtime_checkable
class Rejudging(Protocol):
    """A trainer that can judge again what a trial made, by what the search has not seen, without training."""

    @property
    def rejudged(self) -> tuple[str, ...]:
        """Metrics that `rejudge` measures."""
        ...

    def rejudge(self, made: Path | None, context: TrialContext) -> dict[str, float]:
        """Metrics of what lies in the trial folder `made`, or of the untrained base where that is None; writes into the
        context's folder only.

        All that is drawn by chance (prompts, noise) is drawn by the context's seed alone, so that the same seed asks
        the same of everything that is judged. Raises TrialFailure where what lies there has failed, with its cause.
        """
        ...
