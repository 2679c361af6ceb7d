"""An adapter as diffusers and peft have it: tensors by module path, and a header that says ranks, alphas and kind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

import torch

from trainables.lora.adapters import Adapter
from trainables.lora.layers import LoraLayer
from trainables.lora.module_names import UNET, with_text_model

HEADER = "lora_adapter_metadata"
"""The entry of the file's header that diffusers reads; without it alpha would be taken to be the rank."""


def tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """The trained tensors by ``<part>.<module>.lora_A.weight`` and so on, fp32."""
    found: dict[str, torch.Tensor] = {}
    for part, layers in adapter.layers().items():
        for name, layer in layers.items():
            stem = f"{part}.{with_text_model(part, name)}"
            found[f"{stem}.lora_A.weight"], found[f"{stem}.lora_B.weight"] = matrices(layer)
            if layer.lora_magnitude_vector is not None:
                # transformers looks for the name inside peft's module, diffusers for the module's own.
                ending = "lora_magnitude_vector" if part == UNET else "lora_magnitude_vector.weight"
                found[f"{stem}.{ending}"] = _lengths(layer)
    return {name: tensor.detach().cpu() for name, tensor in found.items()}


def matrices(layer: LoraLayer) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of a layer."""
    return cast(torch.Tensor, layer.lora_A.weight), cast(torch.Tensor, layer.lora_B.weight)


def _lengths(layer: LoraLayer) -> torch.Tensor:
    assert layer.lora_magnitude_vector is not None  # asked by the caller
    is_convolution = matrices(layer)[1].dim() == 4
    return layer.lora_magnitude_vector.reshape(1, -1, 1, 1) if is_convolution else layer.lora_magnitude_vector


def header(adapter: Adapter) -> dict[str, str]:
    """The header's entry of `tensors`."""
    config: dict[str, Any] = {}
    for part in adapter.parts:
        # peft compares the ends of names, so the short form fits with and without the level `with_text_model` adds.
        layers = {name.removeprefix("text_model."): layer for name, layer in adapter.layers()[part.name].items()}
        config |= {f"{part.name}.{name}": value for name, value in _config(layers).items()}
    return {HEADER: json.dumps(config, indent=2, sort_keys=True)}


def _config(layers: Mapping[str, LoraLayer]) -> dict[str, Any]:
    """What peft's own configuration says of layers: the commonest rank and alpha, and who differs."""
    ranks = {name: layer.rank for name, layer in layers.items()}
    alphas = {name: float(layer.alpha) for name, layer in layers.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    any_layer = next(iter(layers.values()))
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
        "target_modules": sorted(layers),
        "use_dora": any_layer.lora_magnitude_vector is not None,
        "use_rslora": any_layer.scale != any_layer.alpha / any_layer.rank,
    }


def scale(entry: Mapping[str, Any], part: str, name: str, rank: int) -> float:
    """Alpha over rank, as LoRA files mean it, of one module that such a header describes; `name` is its path in the
    part."""
    said = {key.removeprefix(f"{part}."): value for key, value in entry.items() if key.startswith(f"{part}.")}
    alpha = float(said.get("lora_alpha", rank))
    for pattern, value in (said.get("alpha_pattern") or {}).items():
        plain = str(pattern).removeprefix("^")
        if name == plain or name.endswith(f".{plain}"):
            alpha = float(value)
    return alpha / rank**0.5 if said.get("use_rslora") else alpha / rank
