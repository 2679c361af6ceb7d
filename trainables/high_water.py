"""How much physical memory this process held at its peak, from a moment on. Linux alone tells it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import resource
import sys
from pathlib import Path

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def give_back() -> None:
    """What was freed goes back to the system, as far as the C library can tell it to: the mark cannot be set below what
    is held."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def set_back() -> bool:
    """Sets the mark to what is held now; tells whether that was allowed. Where it is not, it stays that of the
    process's whole life."""
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True


def mark() -> int:
    """The most that was held since the mark was set back, in bytes."""
    found = _said_of("VmHWM")
    return of_life() if found is None else found


def of_life() -> int:
    """The most that this process ever held, in bytes; every Unix tells it, and nothing sets it back."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def held() -> int:
    """What is held now, in bytes; the mark where that is not known."""
    found = _said_of("VmRSS")
    return mark() if found is None else found


def _said_of(name: str) -> int | None:
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
