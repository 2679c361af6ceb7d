"""A trained adapter as files: peft's layout for diffusers, and kohya's for A1111, ComfyUI and sd-scripts.

Both hold the same weights and carry where they come from in their header. `trainables.lora.lora_files` reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file

from trainables.lora import kohya_layout, peft_layout
from trainables.lora.adapters import Adapter
from trainables.lora.files import write_whole

DIFFUSERS_NAME = "pytorch_lora_weights.safetensors"
"""The name that ``pipeline.load_lora_weights(folder)`` looks for."""
KOHYA_NAME = "lora.safetensors"

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


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
    training: Mapping[str, str] | None = None,
    dtype: Literal["fp16", "bf16", "fp32"] = "fp16",
) -> ExportedLora:
    """Writes an attached adapter, each file whole or not at all.

    `metadata` is put into the header of both files, `training` (`kohya_layout.training_header`) into kohya's.

    Raises:
        ValueError: the adapter is not attached, or has weights that are not finite in `dtype`.
    """
    for part in adapter.parts:
        if not adapter.layers()[part.name]:
            raise ValueError(f"{type(part.model).__name__} has no adapter attached")
    provenance = {"format": "pt", **(metadata or {})}
    peft_header = peft_layout.header(adapter) | provenance
    peft = _written(peft_layout.tensors(adapter), _DTYPES[dtype])
    kohya = _written(kohya_layout.tensors(adapter), _DTYPES[dtype])
    kohya_header = kohya_layout.header(adapter, training or {})
    kohya_header["ss_training_comment"] = json.dumps(dict(metadata or {}), sort_keys=True)
    kohya_header |= kohya_layout.hashes(kohya, kohya_header) | provenance
    return ExportedLora(
        diffusers=write_whole(folder / DIFFUSERS_NAME, lambda path: save_file(peft, path, peft_header)),
        kohya=write_whole(folder / KOHYA_NAME, lambda path: save_file(kohya, path, kohya_header)),
    )


def _written(layout: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Weights in the file's precision. Alphas stay fp32: they multiply all of a module."""
    written = {}
    for name, value in layout.items():
        tensor = value.to(torch.float32 if value.dim() == 0 else dtype).contiguous()
        if not tensor.isfinite().all():
            raise ValueError(f"{name} is not finite in {dtype}")
        written[name] = tensor
    return written
