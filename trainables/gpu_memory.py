"""How much memory of its GPU this process took at its peak, where it uses one. Loads torch only where it is loaded."""

from __future__ import annotations

import sys


def is_used() -> bool:
    """Whether this process computes on a GPU. A trainer without torch uses none that could be measured here."""
    if "torch" not in sys.modules:
        return False
    import torch

    return torch.cuda.is_available() and torch.cuda.is_initialized()


def peak() -> int:
    """Bytes, as torch reserved them, with what the device holds beside torch's own (the context of CUDA, libraries);
    0 where no GPU is used."""
    if not is_used():
        return 0
    import torch

    free, whole = torch.cuda.mem_get_info()
    beside = max(0, whole - free - torch.cuda.memory_reserved())
    return int(torch.cuda.max_memory_reserved() + beside)


def whole() -> int:
    """Bytes that the GPU has; 0 where none is used."""
    if not is_used():
        return 0
    import torch

    return int(torch.cuda.mem_get_info()[1])
