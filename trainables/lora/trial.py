"""One LoRA trial from its first step, or its checkpoint, to its export: the loop that image and text trainers share."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from trainables.lora.engine import LoraEngine
from trainables.protocol import Cause, Report, TrialContext, TrialFailure

LARGEST_HALF = 65504.0
"""Of IEEE half precision, in which LoRA files are exchanged."""


class Batch(Protocol):
    """A micro-batch. `size` counts what its mean loss is over, samples or tokens, in all processes together; `local`
    what this process has of it."""

    @property
    def size(self) -> int: ...

    @property
    def local(self) -> int: ...


class Task(Protocol):
    """All that an image trainer and a text trainer differ in: what a batch and a loss are, and what is measured."""

    def steps(self, unit: int) -> Sequence[Sequence[Any]]:
        """The optimizer steps of one budget unit (from 1), each a sequence of micro-batches; from seed and unit only,
        so that a restored trial sees exactly what it would have seen."""
        ...

    def loss(self, batch: Any) -> torch.Tensor:
        """Mean loss over what this process has of a micro-batch."""
        ...

    def validate(self) -> dict[str, float]:
        """What is measured at every report."""
        ...

    def look(self, budget: int) -> tuple[dict[str, float], dict[str, Path]]:
        """Costly measures and pictures, due where somebody decides and at the end."""
        ...

    def export(self, metrics: Mapping[str, float]) -> None:
        """Writes the trained adapter's files."""
        ...


@dataclass(frozen=True)
class Course:
    """How far a trial goes and when it speaks: at every multiple of `report_every`, wherever somebody decides, and at
    its `horizon`. `timeout_seconds` is its limit over all its parts, however often it was paused or restored."""

    horizon: int
    unit: str
    report_every: int = 1
    timeout_seconds: float | None = None

    def next_report(self, done: int, decide_at: frozenset[int]) -> int:
        """The budget of the report after `done`."""
        regular = (done // self.report_every + 1) * self.report_every
        return min([regular, self.horizon, *(budget for budget in decide_at if budget > done)])


def run(task: Task, engine: LoraEngine, context: TrialContext, course: Course) -> Generator[Report, None, None]:
    """Trains the engine's one adapter on the task; one Report at each point of the course.

    Raises:
        TrialFailure: with its cause.
    """
    trial = _Trial(task, engine, context, course)
    done = trial.restore(context.restore) if context.restore else 0
    while done < course.horizon:
        upto = course.next_report(done, context.decide_at)
        losses = [trial.train(unit) for unit in range(done + 1, upto + 1)]
        done = upto
        yield trial.report(done, sum(losses) / len(losses))


class _Trial:
    def __init__(self, task: Task, engine: LoraEngine, context: TrialContext, course: Course) -> None:
        self.task, self.engine, self.context, self.course = task, engine, context, course
        (self.lane,) = engine.lanes
        self._leads = self.lane.collective.rank == 0
        self._started, self._spent_before = time.monotonic(), 0.0

    @property
    def spent(self) -> float:
        """Seconds of this trial, those before a restart counted."""
        return self._spent_before + time.monotonic() - self._started

    def restore(self, folder: Path) -> int:
        more = self.engine.restore(folder)
        self._spent_before = float(more["seconds"])
        return int(more["budget"])

    def train(self, unit: int) -> float:
        """One budget unit; returns its mean loss."""
        # Whatever is random in a unit (dropout, too) comes from its own seed.
        rank = self.lane.collective.rank
        torch.manual_seed(random.Random(f"{self.context.seed}:{unit}" + f":{rank}" * (rank > 0)).randrange(2**62))
        self._mode(training=True)
        total = weight = 0.0
        for step in self.task.steps(unit):
            self._check_time(unit)
            size = sum(batch.size for batch in step)
            for batch in step:
                loss = self.task.loss(batch) if batch.local else None
                (value,) = self.engine.accumulate([loss], [batch.local / size], [batch.local / batch.size])
                total, weight = total + value * batch.size, weight + batch.size
            self.engine.step()
        return total / weight

    def report(self, budget: int, train_loss: float) -> Report:
        """Measures, and at the end exports; the caller yields it. Only the first of several processes has anything
        to say."""
        if not self._leads:
            return Report(budget, {}, final=budget == self.course.horizon)
        self._mode(training=False)
        final = budget == self.course.horizon
        images: dict[str, Path] = {}
        metrics = {"train_loss": train_loss, "learning_rate": self.lane.rates[0]}
        with self.lane.judged():
            metrics |= self.task.validate()
            if final or budget in self.context.decide_at:
                measured, images = self.task.look(budget)
                metrics |= measured
            if final:
                self._check_size()
                self.task.export(metrics)
        return Report(budget, metrics, self._save(budget), images, final)

    def _save(self, budget: int) -> Callable[[Path], None]:
        return functools.partial(self.engine.save, budget=budget, seconds=self.spent)

    def _mode(self, *, training: bool) -> None:
        for part in self.lane.adapter.parts:
            part.model.train(training)

    def _check_time(self, unit: int) -> None:
        limit, course = self.course.timeout_seconds, self.course
        if self._leads and limit is not None and self.spent > limit:
            raise TrialFailure(
                Cause.TRIAL_TIMEOUT,
                f"{self.spent:.0f} s at {course.unit} {unit} of {course.horizon}; the limit is {limit:.0f} s",
            )

    def _check_size(self) -> None:
        if (largest := self.lane.adapter.largest()) > LARGEST_HALF:
            raise TrialFailure(
                Cause.GRADIENT_EXPLOSION,
                f"an adapter weight reached {largest:.3g}, which a half-precision file cannot hold",
            )
