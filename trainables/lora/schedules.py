"""Learning-rate schedules as pure functions of the step, so that a restored trial continues its own exactly."""

from __future__ import annotations

import math
from collections.abc import Callable

from trainables.lora.choices import SCHEDULES


def multiplier(name: str, step: int, *, total: int, warmup: int = 0, cycles: int = 1, power: float = 1.0) -> float:
    """Share of the peak rate at an optimizer step (0-based) of a trial that has `total` of them.

    Warm-up is linear and capped at half of the trial, so that a short trial still reaches its rate. Formulas as in
    transformers' ``get_scheduler``; polynomial decays to zero with `power`.

    Raises:
        ValueError: the name is not one of `SCHEDULES`.
    """
    warmup = min(warmup, total // 2)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    if name == "constant":
        return 1.0
    if name == "linear":
        return 1.0 - progress
    if name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if name == "cosine_with_restarts":
        return 0.0 if progress >= 1 else 0.5 * (1 + math.cos(math.pi * ((cycles * progress) % 1.0)))
    if name == "polynomial":
        return float((1.0 - progress) ** power)
    raise ValueError(f"lr_scheduler is {name!r}; must be one of {', '.join(SCHEDULES)}")


def schedule(name: str, *, total: int, warmup: int, cycles: int, power: float = 1.0) -> Callable[[int], float]:
    """`multiplier` with all but the step filled in; checks the name at once."""
    multiplier(name, 0, total=total)
    return lambda step: multiplier(name, step, total=total, warmup=warmup, cycles=cycles, power=power)
