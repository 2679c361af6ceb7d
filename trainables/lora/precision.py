"""Arithmetic of a trial: fp32, bf16 or fp16. Adapters and their optimizer are fp32 in all of them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""In which the frozen models (but no VAE) are held."""
START_SCALE = 2.0**12
LEAST_SCALE = 2.0**-4
"""Where a shrinking loss scale says that the gradients themselves are the matter, not their size in half precision."""


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision for the forward pass: products in half precision, norms and sums as torch thinks right."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def grad_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler | None:
    """fp16 gradients are scaled up so that small ones survive; the others need none."""
    return torch.amp.GradScaler(device.type, init_scale=START_SCALE) if precision == "fp16" else None
