"""What the processes that train one trial together tell each other; alone, nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed

if TYPE_CHECKING:
    from trainables.protocol import Collective


class Alone:
    """A group of one."""

    rank, size = 0, 1

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Nothing to add."""

    def sum(self, value: float) -> float:
        """The value itself."""
        return value


class Processes:
    """The processes of torch's default group, which must exist."""

    def __init__(self) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replaces each gradient by its sum over the group, in one exchange; one that is absent counts as zero."""
        for parameter in parameters:
            if parameter.grad is None:  # this process had no part of the batch
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self.sum(0.0)  # all have come so far: between GPUs nobody would notice that one has not
        torch.distributed.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def sum(self, value: float) -> float:
        """The sum of a number over the group; all get the very same."""
        total = torch.tensor(value, dtype=torch.float64)
        torch.distributed.all_reduce(total)
        return float(total)


def collective_of(given: Collective | None) -> Collective:
    """The group that a trial was given, or that of this process alone."""
    return given or Alone()
