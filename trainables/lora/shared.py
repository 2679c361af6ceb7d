"""What a worker keeps between trials."""

from __future__ import annotations

import gc
from typing import Any

import torch


def forget(shared: dict[str, Any]) -> None:
    """Lets go of all of it, so that the old base is gone before the new one comes: two may not fit."""
    shared.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
