"""What the trials of a pack stand on, as the pack sees it; `image_ground` and `text/ground` are two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from trainables.lora.course import Course, Task
from trainables.lora.engine import LoraEngine
from trainables.lora.meter import Charge, for_nobody
from trainables.lora.packed_layers import Routing
from trainables.lora.seats import Seats
from trainables.protocol import Params, TrialContext, TrialFailure


class PackedTask(Task, Protocol):
    """A trial's part of a pack: its adapter sits among others."""

    engine: LoraEngine

    def close(self) -> None:
        """Takes the adapter off the shared base."""
        ...


Asked = Sequence[tuple[Any, Any]]
"""Tasks, each with its micro-batch."""


Asking = Sequence[tuple[Any, int]]
"""Tasks, each with the budget at which it is asked for pictures."""


@dataclass(frozen=True)
class Panel:
    """What a ground judges several adapters with: `routing` is told whose rows are whose, `charge` for whom work was
    done, `alone` gives the models to one slot, and `rows` is how many images a step of the whole pack trains on: as
    many can be drawn at once without more memory than training takes."""

    routing: Routing
    charge: Charge
    alone: Callable[[int], AbstractContextManager[None]]
    rows: int


def by_itself() -> Panel:
    """The panel of a trial that shares its models with nobody."""
    return Panel(Routing(), for_nobody, lambda _: nullcontext(), 1)


class Ground(Protocol):
    """What the trials of a pack stand on: one base, one dataset, and how many of them are asked in one pass."""

    device: torch.device

    def differences(self, params: Params) -> list[str]:
        """Why a configuration cannot train on this ground, one line each; empty where it can."""
        ...

    def task(self, context: TrialContext, seats: Seats) -> PackedTask:
        """A trial's task, its adapter in its seats."""
        ...

    def course(self, params: Params) -> Course:
        """How far a trial goes, and when it speaks."""
        ...

    def likeness(self, params: Params) -> tuple[Any, ...]:
        """Trials with the same value compute their updates together; sorted, they stand side by side."""
        ...

    def weight(self, params: Params) -> float:
        """What a micro-batch costs beside that of another configuration: only proportions count."""
        ...

    def groups(self, asked: Asked) -> list[list[int]]:
        """Places of those that go through the model in one pass."""
        ...

    def losses(self, asked: Asked, routing: Routing, charge: Charge) -> list[torch.Tensor]:
        """The loss of each micro-batch, in one pass; the routing is told whose rows are whose. Of all that is computed
        it is charged for whom: by rows and their size, and what is for some of them only to these."""
        ...

    def validated(self, tasks: Sequence[Any], panel: Panel) -> list[dict[str, float] | TrialFailure]:
        """What each task's `validate` says, or how it fails, measured together."""
        ...

    def looked(self, asked: Asking, panel: Panel) -> list[tuple[dict[str, float], dict[str, Path]] | TrialFailure]:
        """What each task's `look` says, or how it fails, measured together."""
        ...
