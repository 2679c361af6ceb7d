"""How much memory a trial takes at its peak, as far as the machine can honestly say."""

from __future__ import annotations

import torch

from trainables import high_water

GIB = 2**30


class PeakMemory:
    """Counts from its making on.

    On a GPU: the most that tensors took of it (``max_memory_allocated``), base model included. On a CPU: the most
    physical memory that this process held, with Python, its libraries and the base model's mapped pages, from Linux's
    high-water mark. What an earlier trial on the same worker left behind counts as far as the C library cannot give it
    back. Where the mark cannot be set back (not on Linux, or not allowed) it is the mark of the process's whole
    life, which on a worker that trains one trial after another is that of its largest. Trials that share a base are in
    one process, and what they hold together counts for each.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            high_water.give_back()
            high_water.set_back()

    def gib(self) -> float:
        """The peak so far, in GiB."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / GIB
        return high_water.mark() / GIB
