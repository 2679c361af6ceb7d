"""Optimizers by the names that LoRA users know."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch

from trainables.lora.choices import OPTIMIZERS

Groups = Iterable[dict[str, Any]]


def build(name: str, groups: Groups, *, weight_decay: float = 0.01) -> torch.optim.Optimizer:
    """An optimizer over parameter groups, each with its own ``lr``.

    AdamW8bit and Lion are bitsandbytes'; it keeps tensors under 4,096 values in 32 bit. Adafactor runs with the given
    rates, not with its own relative steps, since the rate is what is searched.

    Raises:
        ValueError: the name is not one of `OPTIMIZERS`.
    """
    if name not in _BUILDERS:
        raise ValueError(f"optimizer_type is {name!r}; must be one of {', '.join(OPTIMIZERS)}")
    return _BUILDERS[name](list(groups), weight_decay)


def _adamw(groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=1e-4, weight_decay=weight_decay)


def _bitsandbytes() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that optional GPU kernels are absent, which is not about optimizers
        import bitsandbytes
    return bitsandbytes.optim


def _adamw8bit(groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = _bitsandbytes().AdamW8bit(groups, lr=1e-4, weight_decay=weight_decay)
    return optimizer


def _lion(groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = _bitsandbytes().Lion(groups, lr=1e-4, weight_decay=weight_decay)
    return optimizer


def _adafactor(groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    from transformers.optimization import Adafactor

    return Adafactor(groups, lr=1e-4, weight_decay=weight_decay, scale_parameter=False, relative_step=False)


_BUILDERS: dict[str, Callable[[list[dict[str, Any]], float], torch.optim.Optimizer]] = {
    "AdamW": _adamw,
    "AdamW8bit": _adamw8bit,
    "Lion": _lion,
    "Adafactor": _adafactor,
}
