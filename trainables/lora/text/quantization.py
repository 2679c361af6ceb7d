"""QLoRA: the frozen base in 8 or 4 bits (Dettmers et al. 2023, arXiv 2305.14314), through bitsandbytes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def quantization_config(kind: str, dtype: torch.dtype) -> Any:
    """What transformers is told; None where nothing is quantised."""
    if kind == "none":
        return None
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
    )


def is_quantised(module: nn.Module) -> bool:
    """Whether a module is a linear layer in 8 or 4 bits."""
    return type(module).__name__ in ("Linear8bitLt", "Linear4bit")


def was_turned(module: nn.Module) -> bool:
    """Whether quantising turned a weight that the model itself keeps as (inputs, outputs)."""
    from transformers.pytorch_utils import Conv1D

    return getattr(module, "source_cls", None) is Conv1D


def keep_trainable(model: nn.Module) -> None:
    """Keeps bitsandbytes from repacking 4-bit weights on a CPU when the model is first evaluated: what it repacks is
    for inference alone, and gives no gradient to what comes before it."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.__dict__["support_avx512bf16_for_cpu"] = False  # an attribute that torch knows no type for


def full_weight(layer: nn.Module) -> torch.Tensor:
    """A linear layer's weight (outputs, inputs) in fp32, whatever it is held in."""
    weight: Any = layer.weight
    if (state := getattr(weight, "quant_state", None)) is not None:
        from bitsandbytes.functional import dequantize_4bit

        whole: torch.Tensor = dequantize_4bit(weight.data, state)
        return whole.float()
    if (scales := _row_scales(layer)) is not None:
        return weight.data.float() * scales.float().unsqueeze(1) / 127
    return weight.detach().float()


def _row_scales(layer: nn.Module) -> torch.Tensor | None:
    """Largest absolute value of each row of an 8-bit layer, before and after its first use; None for other layers."""
    held = getattr(layer.weight, "SCB", None)
    if held is None:
        held = getattr(getattr(layer, "state", None), "SCB", None)
    return held if isinstance(held, torch.Tensor) else None
