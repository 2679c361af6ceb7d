"""How LoRA files call the modules of a pipeline.

kohya's scripts train Stable Diffusion 1.x and 2.x under diffusers' names and SDXL under those of its first release
(LDM: ``input_blocks``, ``middle_block``, ``output_blocks``), dots as underscores in both. These are the names that
A1111, ComfyUI, kohya's own scripts and diffusers' converter all take; A1111 does not find SDXL's resampling under
diffusers'.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from torch import nn

UNET, TEXT, TEXT_2 = "unet", "text_encoder", "text_encoder_2"
_SD2_TEXT_WIDTH = 1024
_KOHYA_PREFIXES = {UNET: ("lora_unet",), TEXT: ("lora_te", "lora_te1"), TEXT_2: ("lora_te2",)}
_OTHER_PREFIXES = {UNET: ("unet", "lycoris", "diffusion_model"), TEXT: ("text_encoder",), TEXT_2: ("text_encoder_2",)}
_RESIDUAL = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


class Family(StrEnum):
    """The kinds of base, by what the names in their LoRA files differ in."""

    SD1 = "sd_v1"
    SD2 = "sd_v2"
    SDXL = "sdxl_base_v1-0"


def family_of(models: Mapping[str, nn.Module]) -> Family:
    """The family of a pipeline, or of those of its models that have an adapter."""
    config = getattr(models.get(UNET), "config", None)
    if TEXT_2 in models or getattr(config, "addition_embed_type", None) == "text_time":
        return Family.SDXL
    text_width = getattr(config, "cross_attention_dim", None) or getattr(
        getattr(models.get(TEXT), "config", None), "hidden_size", None
    )
    return Family.SD2 if text_width == _SD2_TEXT_WIDTH else Family.SD1


def with_text_model(part: str, name: str) -> str:
    """A module's name as every LoRA file has it: transformers 5 dropped a level of its CLIP text encoder."""
    return name if part == UNET else f"text_model.{name.removeprefix('text_model.')}"


def kohya_name(part: str, name: str, model: nn.Module, family: Family) -> str:
    """``lora_unet_...``, ``lora_te_...``, and for SDXL ``lora_te1_...`` and ``lora_te2_...``."""
    prefix = _KOHYA_PREFIXES[part][-1 if family is Family.SDXL else 0]
    if part == UNET and family is Family.SDXL:
        name = ldm_name(name, model)
    return f"{prefix}_{flat(with_text_model(part, name))}"


def flat(name: str) -> str:
    """With underscores for dots."""
    return name.replace(".", "_")


def aliases(part: str, name: str, model: nn.Module) -> Iterator[str]:
    """Every name, with underscores for dots, under which files are known to have a module."""
    prefixes = (*_KOHYA_PREFIXES[part], *_OTHER_PREFIXES[part])
    if part == UNET:
        spelt = {name, ldm_name(name, model)}
    else:
        spelt = {name.removeprefix("text_model."), with_text_model(part, name)}
    # Early files of diffusers name the attention processor's own projections.
    spelt |= {one.removesuffix(".0") for one in spelt if one.endswith("to_out.0")}
    spelt |= {re.sub(r"\.(q|k|v|out)_proj$", r".to_\1", one) for one in spelt}
    for prefix in prefixes:
        for one in spelt:
            yield f"{prefix}_{flat(one)}"


def ldm_name(name: str, unet: nn.Module) -> str:
    """The name of a UNet's module in the LDM layout; names outside its blocks stay as they are."""
    side, _, rest = name.partition(".")
    if side == "mid_block":
        return _middle(rest) or name
    found = re.fullmatch(r"(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", rest)
    if side not in ("down_blocks", "up_blocks") or found is None:
        return name
    block, kind, index, inner = int(found[1]), found[2], int(found[3]), found[4]
    config: Any = unet.config  # diffusers' models carry one
    per_block = int(config.layers_per_block) + 1
    if kind == "downsamplers":
        return f"input_blocks.{(block + 1) * per_block}.0.op"
    if kind == "upsamplers":
        has_attention = any(one.startswith(f"up_blocks.{block}.attentions.") for one, _ in unet.named_modules())
        return f"output_blocks.{block * per_block + per_block - 1}.{1 + has_attention}.conv"
    place = f"input_blocks.{1 + block * per_block + index}" if side == "down_blocks" else ""
    place = place or f"output_blocks.{block * per_block + index}"
    return f"{place}.0.{_RESIDUAL.get(inner, inner)}" if kind == "resnets" else f"{place}.1.{inner}"


def _middle(rest: str) -> str | None:
    found = re.fullmatch(r"(resnets|attentions)\.(\d+)\.(.+)", rest)
    if found is None:
        return None
    index, inner = int(found[2]), found[3]
    if found[1] == "resnets":
        return f"middle_block.{2 * index}.{_RESIDUAL.get(inner, inner)}"
    return f"middle_block.{2 * index + 1}.{inner}"
