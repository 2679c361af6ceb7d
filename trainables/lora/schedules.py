"""Learning-rate schedules as pure functions of the step, so that a restored trial continues its own exactly."""

from __future__ import annotations

import math
from collections.abc import Callable

from trainables.lora.choices import SCHEDULES
from trainables.lora.settings import EngineSettings


def multiplier(
    name: str,
    step: int,
    *,
    total: int,
    warmup: int = 0,
    cycles: int = 1,
    power: float = 1.0,
    share: float = 0.25,
    gamma: float = 0.5,
) -> float:
    """Share of the peak rate at an optimizer step (0-based) of a trial that has `total` of them.

    Warm-up is linear and capped at half of the trial, so that a short trial still reaches its rate. Formulas as in
    transformers' ``get_scheduler``; polynomial decays to zero with `power`. ``step`` is torch's ``StepLR`` with drops
    counted in shares of the trial, so that trials of different lengths have the same shape.

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
    if name == "step":
        # A drop that falls on a step is due at it: rounding must not put it one later.
        return float(gamma ** math.floor(progress / share + 1e-9))
    raise ValueError(f"lr_scheduler is {name!r}; must be one of {', '.join(SCHEDULES)}")


def schedule(settings: EngineSettings, total: int) -> Callable[[int], float]:
    """`multiplier` as the settings say, with all but the step filled in; checks the name at once."""

    def at(step: int) -> float:
        return multiplier(
            settings.lr_scheduler,
            step,
            total=total,
            warmup=int(settings.lr_warmup_steps),
            cycles=int(settings.lr_scheduler_num_cycles),
            power=settings.lr_scheduler_power,
            share=settings.lr_step_share,
            gamma=settings.lr_step_gamma,
        )

    at(0)
    return at
