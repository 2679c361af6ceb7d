"""What a trial trains on and how far: its tasks, its micro-batches, its reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch


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


@dataclass(frozen=True)
class Micro:
    """A micro-batch on its way. `share` is what this process has of the whole optimizer step, `part` of the
    micro-batch; `ends_step` says that the optimizer's step comes behind it."""

    batch: Any
    share: float
    part: float
    ends_step: bool


@dataclass(frozen=True)
class Due:
    """A report that is due: where somebody decides and at the end it `looks`, which is costly; `train_loss` is the mean
    since the last one."""

    budget: int
    train_loss: float
    looks: bool
    final: bool


def micros(step: Sequence[Any]) -> Iterator[Micro]:
    """The micro-batches of an optimizer step."""
    size = sum(batch.size for batch in step)
    for number, batch in enumerate(step, 1):
        yield Micro(batch, batch.local / size, batch.local / batch.size, ends_step=number == len(step))
