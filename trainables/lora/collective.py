"""What the processes that train one trial together tell each other; alone, nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch


class Collective(Protocol):
    """A group of processes, each with its part of every micro-batch."""

    rank: int
    size: int

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replaces each gradient by its sum over the group; one that is absent counts as zero."""
        ...

    def sum(self, value: float) -> float:
        """The sum of a number over the group."""
        ...


class Alone:
    """A group of one."""

    rank, size = 0, 1

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Nothing to add."""

    def sum(self, value: float) -> float:
        """The value itself."""
        return value
