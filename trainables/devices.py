"""What this machine trains on."""

from __future__ import annotations


def gpu_count() -> int:
    """GPUs that this process sees."""
    import torch

    return int(torch.cuda.device_count())
