"""An adapter as kohya's scripts, A1111 and ComfyUI have it, and the header that they show of a file."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from safetensors.torch import save

from trainables.lora.adapters import Adapter
from trainables.lora.layers import LoraLayer
from trainables.lora.module_names import TEXT, UNET, Family, family_of, kohya_name
from trainables.lora.peft_layout import matrices
from trainables.lora.settings import EngineSettings

_LEGACY_HASH_BYTES = slice(0x100000, 0x110000)


def tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """The trained tensors by ``lora_unet_<module>.lora_down.weight`` and so on, fp32.

    The format has no flag for rsLoRA: `alpha` is written so that alpha over rank is the scale that was trained with.
    A part has one alpha, and one for its convolutions: diffusers' converter loses those of attention that differ. What
    a layer's own scale differs by stands in its ``lora_up``.
    """
    models = {part.name: part.model for part in adapter.parts}
    family = family_of(models)
    found: dict[str, torch.Tensor] = {}
    for part, layers in adapter.layers().items():
        alphas = {large: _alpha(layer for layer in layers.values() if _is_large(layer) == large) for large in (0, 1)}
        for name, layer in layers.items():
            alpha = alphas[_is_large(layer)]
            stem = kohya_name(part, name, models[part], family)
            down, up = matrices(layer)
            found[f"{stem}.lora_down.weight"] = down
            found[f"{stem}.lora_up.weight"] = up * (layer.scale * layer.rank / alpha)
            found[f"{stem}.alpha"] = torch.tensor(alpha)
            if layer.lora_magnitude_vector is not None:
                found[f"{stem}.dora_scale"] = _lengths(layer)
    return {name: tensor.detach().cpu() for name, tensor in found.items()}


def _lengths(layer: LoraLayer) -> torch.Tensor:
    """One length an output, in the weight's number of dimensions: readers tell rows from columns by where the ones
    are."""
    assert layer.lora_magnitude_vector is not None  # asked by the caller
    ones = [1] * (matrices(layer)[1].dim() - 1)
    return layer.lora_magnitude_vector.reshape(-1, *ones)


def header(adapter: Adapter, training: Mapping[str, str]) -> dict[str, str]:
    """What tools show of a LoRA, under the names of kohya's scripts; `training` is `training_header`'s."""
    family = family_of({part.name: part.model for part in adapter.parts})
    velocity = training.get("ss_v_parameterization") == "True" and family is not Family.SDXL
    sizes = _sizes(adapter, large=False) or _sizes(adapter, large=True) or (0, 0.0)
    arguments = _arguments(adapter)
    rates = {part.name: part.rate for part in adapter.parts}
    return {
        # DoRA is LyCORIS's in kohya's world.
        "ss_network_module": "lycoris.kohya" if "dora_wd" in arguments else "networks.lora",
        "ss_network_dim": str(sizes[0]),
        "ss_network_alpha": f"{sizes[1]:g}",
        "ss_network_args": json.dumps(arguments),
        "ss_base_model_version": f"{family}_v" if velocity else str(family),
        "ss_v2": str(family is Family.SD2),
        **{name: f"{rates[part]:g}" for name, part in _RATES.items() if part in rates},
        **training,
    }


_RATES = {"ss_learning_rate": UNET, "ss_unet_lr": UNET, "ss_text_encoder_lr": TEXT}


def _is_large(layer: LoraLayer) -> bool:
    """Whether it is of a convolution larger than 1x1, which has a rank and alpha of its own."""
    return tuple(getattr(layer.base_layer, "kernel_size", (1, 1))) != (1, 1)


def _alpha(layers: Iterable[LoraLayer]) -> float:
    """The commonest alpha, as files mean it: alpha over rank is the scale."""
    counted = Counter(layer.scale * layer.rank for layer in layers)
    return counted.most_common(1)[0][0] if counted else 0.0


def _sizes(adapter: Adapter, *, large: bool) -> tuple[int, float] | None:
    """The commonest rank and alpha of convolutions larger than 1x1, or of the other layers."""
    layers = [layer for part in adapter.layers().values() for layer in part.values() if _is_large(layer) == large]
    return (Counter(layer.rank for layer in layers).most_common(1)[0][0], _alpha(layers)) if layers else None


def _arguments(adapter: Adapter) -> dict[str, str]:
    """What kohya's ``--network_args`` would have said."""
    shape = adapter.parts[0].shape
    found: dict[str, str] = {}
    if sizes := _sizes(adapter, large=True):
        found |= {"conv_dim": str(sizes[0]), "conv_alpha": f"{sizes[1]:g}"}
    if shape.dora:
        found |= {"algo": "lora", "dora_wd": "True", "wd_on_output": "True"}
    if shape.rslora:
        found["rs_lora"] = "True"
    if shape.ranks:
        found["rank_by_block"] = json.dumps(dict(shape.ranks), sort_keys=True)
    if adapter.loraplus_ratio != 1:
        found["loraplus_lr_ratio"] = f"{adapter.loraplus_ratio:g}"
    return found


_SETTINGS = {
    "ss_optimizer": "optimizer_type",
    "ss_lr_scheduler": "lr_scheduler",
    "ss_lr_warmup_steps": "lr_warmup_steps",
    "ss_num_epochs": "max_train_epochs",
    "ss_gradient_accumulation_steps": "gradient_accumulation_steps",
    "ss_gradient_checkpointing": "gradient_checkpointing",
    "ss_max_grad_norm": "max_grad_norm",
    "ss_min_snr_gamma": "min_snr_gamma",
    "ss_noise_offset": "noise_offset",
    "ss_zero_terminal_snr": "zero_terminal_snr",
    "ss_network_dropout": "network_dropout",
    "ss_batch_size_per_device": "train_batch_size",
}
_MIXED = {"fp32": "no"}
_LEFT_OUT = {"min_snr_gamma": None, "noise_offset": None, "zero_terminal_snr": False}
"""What kohya's scripts write of what is not used."""


def training_header(
    params: Mapping[str, Any],
    *,
    steps: int,
    seed: int,
    precision: str,
    resolution: tuple[int, int],
    images: int,
    base: str,
    velocity: bool = False,
) -> dict[str, str]:
    """How a LoRA was trained, under kohya's names: `params` is the configuration, `steps` counts optimizer steps,
    `resolution` is width and height in pixels, `velocity` whether the base predicts that in place of noise."""
    params = {**asdict(EngineSettings.from_params(params)), **_LEFT_OUT, **params}
    said = {name: str(params[key]) for name, key in _SETTINGS.items() if key in params}
    return said | {
        "ss_steps": str(steps),
        "ss_max_train_steps": str(steps),
        "ss_epoch": said.get("ss_num_epochs", ""),
        "ss_seed": str(seed),
        "ss_mixed_precision": _MIXED.get(precision, precision),
        "ss_resolution": str(resolution),
        "ss_num_train_images": str(images),
        "ss_sd_model_name": base,
        "ss_v_parameterization": str(velocity),
    }


def hashes(layout: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """What tools know a file by, as kohya's scripts write it: over the tensors' bytes, whatever the header says."""
    kept = {name: value for name, value in metadata.items() if name.startswith("ss_")}
    whole = save(dict(layout), kept)
    start = 8 + int.from_bytes(whole[:8], "little")
    return {
        "sshs_model_hash": hashlib.sha256(memoryview(whole)[start:]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(whole[_LEGACY_HASH_BYTES]).hexdigest()[:8],
    }
