"""One LoRA trial from its first step, or its checkpoint, to its export: the loop that image and text trainers share."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import torch

from trainables.lora.course import Course, Due, Micro, Task, micros
from trainables.lora.engine import LoraEngine
from trainables.protocol import Cause, Report, TrialContext, TrialFailure

LARGEST_HALF = 65504.0
"""Of IEEE half precision, in which LoRA files are exchanged."""


def run(task: Task, engine: LoraEngine, context: TrialContext, course: Course) -> Generator[Report, None, None]:
    """Trains the engine's one adapter on the task; one Report at each point of the course.

    Raises:
        TrialFailure: with its cause.
    """
    trial = Trial(task, engine, context, course)
    if context.restore:
        trial.restore(context.restore)
    while not trial.is_complete:
        trial.train()
        if trial.is_due:
            yield trial.report()


class Trial:
    """One trial on its way: its next micro-batch, what it learns from it, and when it speaks.

    `seeded` sets the chance of a budget unit: torch's own, unless several trials share the process. `clock` gives the
    seconds that count as this trial's: all that pass, unless several share the device.
    """

    def __init__(
        self,
        task: Task,
        engine: LoraEngine,
        context: TrialContext,
        course: Course,
        *,
        seeded: Callable[[int], object] = torch.manual_seed,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.task, self.engine, self.context, self.course = task, engine, context, course
        (self.lane,) = engine.lanes
        self._leads, self._seeded = self.lane.collective.rank == 0, seeded
        self._clock, self._started, self._spent_before = clock, clock(), 0.0
        self.done = 0
        self._micros: list[Micro] = []
        self._place, self._sum, self._weight = 0, 0.0, 0.0
        self._unit_losses: list[float] = []
        self._report_at = self._next_report()

    def _next_report(self) -> int:
        return self.course.next_report(self.done, self.context.decide_at)

    @property
    def spent(self) -> float:
        """Seconds of this trial, those before a restart counted."""
        return self._spent_before + self._clock() - self._started

    @property
    def is_complete(self) -> bool:
        """Whether its horizon is reached and nothing is left to say."""
        return self.done >= self.course.horizon and not self.is_due

    @property
    def is_due(self) -> bool:
        """Whether a report is due."""
        return bool(self._unit_losses) and self.done == self._report_at

    def restore(self, folder: Path) -> None:
        """Goes on from what a report's `save` wrote."""
        self._resume(self.engine.restore(folder))

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self._resume(self.engine.resume(state))

    def _resume(self, more: Mapping[str, Any]) -> None:
        self._spent_before, self.done = float(more["seconds"]), int(more["budget"])
        self._report_at = self._next_report()
        if (walk := more.get("walk")) is None:  # written between two budget units
            return
        self._unit_losses = list(walk["unit_losses"])
        if walk["place"]:
            self._begin()
            self._place, self._sum, self._weight = walk["place"], walk["sum"], walk["weight"]
            self.lane.restore_gradients(walk["gradients"])

    def state(self) -> dict[str, Any]:
        """All that is needed to continue from here, also in the middle of a budget unit."""
        walk = {
            "place": self._place,
            "sum": self._sum,
            "weight": self._weight,
            "unit_losses": list(self._unit_losses),
            "gradients": self.lane.gradients(),
        }
        return self.engine.state(budget=self.done, seconds=self.spent, walk=walk)

    def _begin(self) -> None:
        """Begins a budget unit. Whatever is random in it (dropout, too) comes from its own seed."""
        rank, unit = self.lane.collective.rank, self.done + 1
        self._seeded(random.Random(f"{self.context.seed}:{unit}" + f":{rank}" * (rank > 0)).randrange(2**62))
        self.set_training()
        self._micros = [micro for step in self.task.steps(unit) for micro in micros(step)]
        self._place, self._sum, self._weight = 0, 0.0, 0.0

    def next(self) -> Micro:
        """The next micro-batch; the same until `learnt` has been told of it.

        Raises:
            TrialFailure: its time is up.
        """
        if not self._micros:
            self._begin()
        if self._place == 0 or self._micros[self._place - 1].ends_step:
            self._check_time(self.done + 1)
        return self._micros[self._place]

    def learnt(self, value: float) -> None:
        """Takes in that the gradient of the next micro-batch has come, whose loss was `value`; steps where it was the
        last of a step.

        Raises:
            TrialFailure: the gradient is not finite.
        """
        micro = self._micros[self._place]
        self._sum, self._weight = self._sum + value * micro.batch.size, self._weight + micro.batch.size
        self._place += 1
        if micro.ends_step:
            self.engine.step()
        if self._place == len(self._micros):
            self.done += 1
            self._unit_losses.append(self._sum / self._weight)
            self._micros, self._place = [], 0

    def train(self) -> None:
        """The rest of a budget unit, by itself.

        Raises:
            TrialFailure: with its cause.
        """
        unit = self.done
        while self.done == unit:
            micro = self.next()
            loss = self.task.loss(micro.batch) if micro.batch.local else None
            (value,) = self.engine.accumulate([loss], [micro.share], [micro.part])
            self.learnt(value)

    def report(self) -> Report:
        """Measures, and at the end exports. Only the first of several processes has anything to say."""
        due = self.due()
        if not self._leads:
            return Report(due.budget, {}, final=due.final)
        self.set_judging()
        images: dict[str, Path] = {}
        with self.lane.judged():
            metrics = self.task.validate()
            if due.looks:
                measured, images = self.task.look(due.budget)
                metrics |= measured
            return self.reported(due, metrics, images)

    def due(self) -> Due:
        """The report that is due; whoever asks is to measure for it, and the next one is another."""
        budget, losses = self.done, self._unit_losses
        self._unit_losses, self._report_at = [], self._next_report()
        final = budget == self.course.horizon
        return Due(budget, sum(losses) / len(losses), final or budget in self.context.decide_at, final)

    def reported(self, due: Due, measured: Mapping[str, float], images: Mapping[str, Path]) -> Report:
        """The report of what was measured; the last one exports. The judged weights stand in the model.

        Raises:
            TrialFailure: the adapter cannot be exported.
        """
        metrics = {"train_loss": due.train_loss, "learning_rate": self.lane.rates[0], **measured}
        if due.final:
            self._check_size()
            self.task.export(metrics)
        return Report(due.budget, metrics, functools.partial(self._save, due.budget), images, due.final)

    def _save(self, budget: int, folder: Path) -> None:
        self.engine.save(folder, budget=budget, seconds=self.spent)

    def set_training(self) -> None:
        """The models are in training mode, whoever was measured last."""
        for part in self.lane.adapter.parts:
            if not part.model.training:
                part.model.train()

    def set_judging(self) -> None:
        """The models are in evaluation mode; `set_training` is the way back."""
        for part in self.lane.adapter.parts:
            part.model.eval()

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
