"""A plain loop of peft and torch: what the engine is held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from transformers.optimization import Adafactor

Losses = Sequence[Callable[[], torch.Tensor]]
"""Mean losses of the micro-batches, in the order in which they come."""


def with_peft(model: torch.nn.Module, targets: Sequence[str], rank: int, alpha: float, **options: Any) -> None:
    """Puts peft's LoRA layers into a frozen model, in fp32."""
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), **options)
    inject_adapter_in_model(config, model)


def parameters(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """peft's trained tensors."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def take_weights(model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Gives peft's adapter the tensors of an engine's adapter, by ``<layer>.lora_A.weight``."""
    own = dict(model.named_parameters())
    for name, value in state.items():
        stem, _, end = name.rpartition(".lora_")
        tensor = own[f"{stem}.lora_{_PEFT_ENDS[end]}"].data
        tensor.copy_(value.reshape(tensor.shape))


_PEFT_ENDS = {
    "A.weight": "A.default.weight",
    "B.weight": "B.default.weight",
    "magnitude_vector": "magnitude_vector.default.weight",
}


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """peft's tensors by the names that the engine's adapter has."""
    state = get_peft_model_state_dict(model)
    return {
        name.replace("magnitude_vector.weight", "magnitude_vector"): value.detach().clone()
        for name, value in state.items()
    }


def optimizer(name: str, groups: list[dict[str, Any]], weight_decay: float = 0.01) -> torch.optim.Optimizer:
    """The optimizer of the name, as its library's documentation makes it."""
    import bitsandbytes
    from prodigyopt import Prodigy

    if name == "Prodigy":
        return Prodigy(groups, weight_decay=weight_decay, use_bias_correction=True, safeguard_warmup=True)
    if name == "Adafactor":
        return Adafactor(groups, weight_decay=weight_decay, scale_parameter=False, relative_step=False)
    kinds = {"AdamW": torch.optim.AdamW, "AdamW8bit": bitsandbytes.optim.AdamW8bit, "Lion": bitsandbytes.optim.Lion}
    return kinds[name](groups, weight_decay=weight_decay)


def train(
    losses: Losses,
    groups: list[dict[str, Any]],
    *,
    name: str,
    steps: int,
    accumulation: int,
    max_norm: float,
    warmup: int,
) -> list[float]:
    """A cosine schedule with warm-up over `steps`, clipping, accumulation; returns the micro-batches' losses."""
    peaks = [group["lr"] for group in groups]
    chosen, seen = optimizer(name, groups), []
    for step in range(steps):
        share = (step + 1) / (warmup + 1)
        if step >= warmup:
            share = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
        for group, peak in zip(chosen.param_groups, peaks, strict=True):
            group["lr"] = peak * share
        for loss in (part() for part in losses[step * accumulation : (step + 1) * accumulation]):
            (loss / accumulation).backward()
            seen.append(float(loss.detach()))
        torch.nn.utils.clip_grad_norm_([p for group in chosen.param_groups for p in group["params"]], max_norm)
        chosen.step()
        chosen.zero_grad()
    return seen
