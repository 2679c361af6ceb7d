"""A ground for packs that trains the small model: everything of a pack but the size of the base."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.trainables.lora.small import TARGETS, small
from trainables.lora.adapters import Adapter, LoraShape, Part
from trainables.lora.course import Course
from trainables.lora.engine import LoraEngine
from trainables.lora.optimization import Optimization
from trainables.lora.packed_layers import Routing
from trainables.lora.seats import OwnSeats
from trainables.lora.settings import EngineSettings
from trainables.lora.trial import Trial
from trainables.protocol import TrialContext, TrialFailure

MICROS = 4
"""Micro-batches of a budget unit."""


@dataclass(frozen=True)
class SmallBatch:
    """`key` says which it is."""

    key: str
    x: torch.Tensor
    y: torch.Tensor

    @property
    def size(self) -> int:
        return len(self.x)

    local = size


class SmallTask:
    """Learns noise; what it was shown is kept in `seen`, and `harm` is done to its losses."""

    def __init__(self, model, context, seats=None, harm=lambda loss: loss):
        self.model, self.context, self.params, self.harm = model, context, context.params, harm
        self.seats, self.seen, self.judged = seats or OwnSeats(), [], []
        chosen = self.params
        shape = LoraShape(
            chosen.get("rank", 4), chosen.get("alpha", 2.5), dropout=chosen.get("dropout", 0.0),
            conv_rank=chosen.get("conv_rank", 0), dora=chosen.get("dora", False), ranks=chosen.get("ranks", {}),
        )  # fmt: skip
        part = Part("model", model, chosen.get("learning_rate", 1e-2), shape, TARGETS)
        self.adapter = Adapter([part], seats=self.seats).attach(context.seed)
        steps = -(-MICROS // chosen.get("gradient_accumulation_steps", 1))
        settings, precision = EngineSettings.from_params(chosen), chosen.get("precision", "fp32")
        lane = Optimization(self.adapter, settings, steps * chosen["units"], precision=precision)
        self.engine = LoraEngine([lane])

    def steps(self, unit):
        rng = random.Random(f"{self.context.seed}:{unit}")
        batches = [self._batch(f"{unit}:{number}", rng.randrange(2**62)) for number in range(MICROS)]
        size = self.params.get("gradient_accumulation_steps", 1)
        return [batches[start : start + size] for start in range(0, MICROS, size)]

    def _batch(self, key, seed):
        drawn, size = torch.Generator().manual_seed(seed), self.params.get("batch", 2)
        return SmallBatch(key, torch.randn(size, 4, 6, 6, generator=drawn), torch.randn(size, 4, generator=drawn))

    def loss(self, batch):
        (loss,) = losses([(self, batch)], Routing())
        return loss

    def validate(self):
        held_out = torch.randn(5, 4, 6, 6, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found = float(self.model(held_out).square().mean())
        return {"val_loss": found}

    def look(self, budget):
        return {"looked": float(budget)}, {}

    def export(self, metrics):
        self.judged.append(dict(metrics))

    def close(self):
        self.adapter.detach()


def losses(asked, routing):
    """Mean squared errors, in one pass."""
    model = asked[0][0].model
    routing.tell([model], [(task.seats.slot, batch.local) for task, batch in asked])
    found = model(torch.cat([batch.x for _, batch in asked])).split([batch.local for _, batch in asked])
    for task, batch in asked:
        task.seen.append((batch.key, batch.x, batch.y))
    return [task.harm((out - batch.y).square().mean()) for out, (task, batch) in zip(found, asked, strict=True)]


class SmallGround:
    """All of them on one small model."""

    def __init__(self, harm=None):
        self.model, self.device, self.harm = small().to(torch.get_default_dtype()), torch.device("cpu"), harm or {}

    def differences(self, params):
        return []

    def task(self, context, seats):
        return SmallTask(self.model, context, seats, self.harm.get(context.seed, lambda loss: loss))

    def course(self, params):
        return Course(params["units"], "unit")

    def likeness(self, params):
        return (params.get("rank", 4), params.get("batch", 2))

    def groups(self, asked):
        return [list(range(len(asked)))] if asked else []

    def losses(self, asked, routing, charge):
        found = losses(asked, routing)
        charge({task.seats.slot: batch.local for task, batch in asked})
        return found

    def weight(self, params):
        return float(params.get("batch", 2))

    def validated(self, tasks, panel):
        return [self._of(task, panel, task.validate) for task in tasks]

    def looked(self, asked, panel):
        return [self._of(task, panel, task.look, budget) for task, budget in asked]

    @staticmethod
    def _of(task, panel, measure, *given):
        panel.routing.tell([task.model], [(task.seats.slot, 5)])
        try:
            return measure(*given)
        except TrialFailure as failure:
            return failure
        finally:
            panel.charge({task.seats.slot: 1})


def context(params, seed, folder=Path(), **changes) -> TrialContext:
    """Of a trial of two units, unless it says how many."""
    return TrialContext({"units": 2, **params}, folder, seed=seed, **changes)


def alone(params, seed, micros) -> tuple[SmallTask, list[float]]:
    """A trial by itself after so many micro-batches, and the losses of these."""
    given = context(params, seed)
    task = SmallTask(small().to(torch.get_default_dtype()), given)
    trial, values = Trial(task, task.engine, given, Course(given.params["units"], "unit")), []
    for _ in range(micros):
        micro = trial.next()
        values += task.engine.accumulate([task.loss(micro.batch)], [micro.share], [micro.part])
        trial.learnt(values[-1])
        if trial.is_due:
            trial.report()
    return task, values


@contextmanager
def exactly():
    """Double precision."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def apart(ours: dict, theirs: dict, start: dict) -> float:
    """Distance between two updates of an adapter, as a share of the second's length."""
    assert ours.keys() == theirs.keys() == start.keys()
    distance = sum(float((ours[name] - theirs[name]).square().sum()) for name in ours) ** 0.5
    length = sum(float((theirs[name] - start[name]).square().sum()) for name in ours) ** 0.5
    return distance / length if length else distance


def same_batches(ours: Sequence[tuple], theirs: Sequence[tuple]) -> bool:
    """Whether the same batches were shown in the same order, to the bit."""
    return len(ours) == len(theirs) and all(
        one[0] == other[0] and torch.equal(one[1], other[1]) and torch.equal(one[2], other[2])
        for one, other in zip(ours, theirs, strict=True)
    )
