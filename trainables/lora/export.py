"""The winner as files: peft's layout for diffusers, and kohya's for A1111, ComfyUI and sd-scripts.

Both carry the provenance in their header. The layouts are told apart, checked against a base and loaded by `load_lora`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file

from trainables.lora.adapters import Adapter, Part
from trainables.lora.files import write_whole
from trainables.lora.lora_files import load_lora

__all__ = ["DIFFUSERS_NAME", "KOHYA_NAME", "ExportedLora", "export_lora", "load_lora"]

DIFFUSERS_NAME = "pytorch_lora_weights.safetensors"
"""The name that ``pipeline.load_lora_weights(folder)`` looks for."""
KOHYA_NAME = "lora.safetensors"

_DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
_SD2_TEXT_WIDTH = 1024


@dataclass(frozen=True)
class ExportedLora:
    """The two files of one LoRA; the same weights in both."""

    diffusers: Path
    kohya: Path


def export_lora(
    folder: Path,
    adapter: Adapter,
    *,
    metadata: Mapping[str, str] | None = None,
    dtype: Literal["fp16", "fp32"] = "fp16",
) -> ExportedLora:
    """Writes an attached adapter, each file whole or not at all.

    `metadata` is put into the header of both files.

    Raises:
        ValueError: the adapter is not attached, or has weights that are not finite in `dtype`.
    """
    state = {part.name: _part_state(adapter, part, _DTYPES[dtype]) for part in adapter.parts}
    shape = adapter.parts[0].shape
    provenance = {"format": "pt", **(metadata or {})}
    header = _peft_header(state, shape.rank, shape.alpha) | provenance
    tensors = _peft_layout(state)
    diffusers = write_whole(folder / DIFFUSERS_NAME, lambda path: save_file(tensors, path, header))
    kohya_header = _kohya_header(adapter.parts[0].model, shape.rank, shape.alpha, metadata or {}) | provenance
    kohya_tensors = _kohya_layout(state, shape.alpha)
    kohya = write_whole(folder / KOHYA_NAME, lambda path: save_file(kohya_tensors, path, kohya_header))
    return ExportedLora(diffusers, kohya)


def _part_state(adapter: Adapter, part: Part, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Weights by ``<module>.lora_A.weight`` and ``<module>.lora_B.weight``; modules named as diffusers names them."""
    if not adapter.layers()[part.name]:
        raise ValueError(f"{type(part.model).__name__} has no adapter attached")
    state = {}
    for name, value in adapter.state().items():
        if not name.startswith(f"{part.name}."):
            continue
        tensor = value.to(dtype).contiguous()
        if not tensor.isfinite().all():
            raise ValueError(f"{name} is not finite in {dtype}")
        state[name.removeprefix(f"{part.name}.")] = tensor
    return state


def _with_text_model(part: str, name: str) -> str:
    # transformers 5 dropped this level of its CLIP text encoder; every LoRA file in the world has it.
    return f"text_model.{name.removeprefix('text_model.')}" if part == "text_encoder" else name


def _peft_layout(state: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{_with_text_model(part, name)}": value
        for part, tensors in state.items()
        for name, value in tensors.items()
    }


def _peft_header(state: Mapping[str, Mapping[str, torch.Tensor]], rank: int, alpha: float) -> dict[str, str]:
    """diffusers' own entry: without it alpha would be taken to be the rank."""
    config: dict[str, object] = {}
    for part, tensors in state.items():
        # peft compares the ends of names, so the short form fits with and without the level `_with_text_model` adds.
        modules = sorted({name.rpartition(".lora_")[0].removeprefix("text_model.") for name in tensors})
        config |= {f"{part}.r": rank, f"{part}.lora_alpha": alpha, f"{part}.target_modules": modules}
    return {"lora_adapter_metadata": json.dumps(config, indent=2, sort_keys=True)}


def _kohya_layout(state: Mapping[str, Mapping[str, torch.Tensor]], alpha: float) -> dict[str, torch.Tensor]:
    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te"}
    layout = {}
    for part, tensors in state.items():
        for name, value in tensors.items():
            module, _, matrix = _with_text_model(part, name).rpartition(".lora_")
            flat = f"{prefixes[part]}_{module.replace('.', '_')}"
            layout[f"{flat}.lora_{'down' if matrix.startswith('A') else 'up'}.weight"] = value
            layout[f"{flat}.alpha"] = torch.tensor(float(alpha))
    return layout


def _kohya_header(unet: torch.nn.Module, rank: int, alpha: float, metadata: Mapping[str, str]) -> dict[str, str]:
    """What tools show of a LoRA, under the names of kohya's sd-scripts."""
    is_sd2 = getattr(unet, "config", {}).get("cross_attention_dim") == _SD2_TEXT_WIDTH
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{alpha:g}",
        "ss_base_model_version": "sd_v2" if is_sd2 else "sd_v1",
        "ss_v2": str(is_sd2),
        "ss_training_comment": json.dumps(dict(metadata), sort_keys=True),
    }
