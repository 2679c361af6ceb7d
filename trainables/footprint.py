"""How much memory one trial needs at its peak: measured, in a process of its own that does nothing else."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

from trainables.protocol import Trainer, TrialContext

_KIB = 1024


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
        gpu, device = _of_gpu()
    finally:
        reports.close()
    return Peak(_of_process(), gpu, device)


def _of_process() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * _KIB


def _of_gpu() -> tuple[int, int]:
    if "torch" not in sys.modules:  # a trainer without it uses no GPU that could be measured here
        return 0, 0
    import torch

    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0, 0
    free, whole = torch.cuda.mem_get_info()
    beside = max(0, whole - free - torch.cuda.memory_reserved())
    return int(torch.cuda.max_memory_reserved() + beside), int(whole)
