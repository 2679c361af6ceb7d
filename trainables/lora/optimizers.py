"""Optimizers by the names that LoRA users know."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from typing import Any

import torch

from trainables.lora.choices import OPTIMIZERS

Group = dict[str, Any]


def build(name: str, groups: list[Group], *, weight_decay: float = 0.01) -> list[torch.optim.Optimizer]:
    """Optimizers over parameter groups, each group with its own ``lr``; one for all groups, or one each.

    AdamW8bit and Lion are bitsandbytes'; it keeps tensors under 4,096 values in 32 bit. Adafactor runs with the given
    rates, not with its own relative steps, since the rate is what is searched. Prodigy finds a step size for each group
    on its own, and the rate multiplies it: 1 is its authors' advice.

    Raises:
        ValueError: the name is not one of `OPTIMIZERS`.
    """
    if name not in _BUILDERS:
        raise ValueError(f"optimizer_type is {name!r}; must be one of {', '.join(OPTIMIZERS)}")
    if name in _ONE_FOR_EACH_GROUP:
        return [_BUILDERS[name]([group], weight_decay) for group in groups]
    return [_BUILDERS[name](groups, weight_decay)]


def _adamw(groups: list[Group], weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=1e-4, weight_decay=weight_decay, fused=True)


def _bitsandbytes() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that optional GPU kernels are absent, which is not about optimizers
        import bitsandbytes
    return bitsandbytes.optim


def _adamw8bit(groups: list[Group], weight_decay: float) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = _bitsandbytes().AdamW8bit(groups, lr=1e-4, weight_decay=weight_decay)
    return optimizer


def _lion(groups: list[Group], weight_decay: float) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = _bitsandbytes().Lion(groups, lr=1e-4, weight_decay=weight_decay)
    return optimizer


def _adafactor(groups: list[Group], weight_decay: float) -> torch.optim.Optimizer:
    from transformers.optimization import Adafactor

    return Adafactor(groups, lr=1e-4, weight_decay=weight_decay, scale_parameter=False, relative_step=False)


def _prodigy(groups: list[Group], weight_decay: float) -> torch.optim.Optimizer:
    from prodigyopt import Prodigy

    with contextlib.redirect_stdout(io.StringIO()):  # it prints that its weight decay is decoupled
        optimizer: torch.optim.Optimizer = Prodigy(
            groups, lr=1.0, weight_decay=weight_decay, use_bias_correction=True, safeguard_warmup=True
        )
    return optimizer


_BUILDERS: dict[str, Callable[[list[Group], float], torch.optim.Optimizer]] = {
    "AdamW": _adamw,
    "AdamW8bit": _adamw8bit,
    "Lion": _lion,
    "Adafactor": _adafactor,
    "Prodigy": _prodigy,
}
# One estimate for all would need one rate for all, and a text encoder has its own.
_ONE_FOR_EACH_GROUP = {"Prodigy"}
