"""How much memory one trial needs at its peak: measured, in a process of its own that does nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from trainables import gpu_memory, high_water
from trainables.protocol import Trainer, TrialContext


@dataclass(frozen=True)
class Peak:
    """Bytes of RAM, of GPU memory, and those that the GPU has; the last two 0 where no GPU was used."""

    memory: int
    gpu: int
    device: int


def measure(trainer: Trainer, context: TrialContext) -> Peak:
    """Trains to the first report and looks at what that took.

    Memory of a GPU counts as torch reserved it, with whatever else holds some of the device (the context of CUDA, its
    libraries): what a process really keeps from others.
    """
    reports = trainer.run(context)
    try:
        next(reports, None)
        gpu, device = gpu_memory.peak(), gpu_memory.whole()
    finally:
        reports.close()
    return Peak(high_water.of_life(), gpu, device)
