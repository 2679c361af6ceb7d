"""How much memory a trial takes at its peak, as far as the machine can honestly say."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import sys
from pathlib import Path

import torch

GIB = 2**30
_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Counts from its making on.

    On a GPU: the most that tensors took of it (``max_memory_allocated``), base model included. On a CPU: the most
    physical memory that this process held, with Python, its libraries and the base model's mapped pages, from Linux's
    high-water mark. What an earlier trial on the same worker left behind counts as far as the C library cannot give it
    back. Where the mark cannot be set back (not on Linux, or not allowed) it is the mark of the process's whole
    life, which on a worker that trains one trial after another is that of its largest.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _give_back()
            _set_back()

    def gib(self) -> float:
        """The peak so far, in GiB."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / GIB
        return _high_water_mark() / GIB


def _give_back() -> None:
    """What an earlier trial freed goes back to the system, as far as the C library can tell it to: the mark cannot be
    set below what is held."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _set_back() -> bool:
    """Sets the high-water mark to what is held now; tells whether that was allowed."""
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True


def _high_water_mark() -> int:
    """Bytes."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
