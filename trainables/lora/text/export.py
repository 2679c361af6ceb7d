"""What a text trial leaves: the adapter in peft's layout, or the whole model with the adapter merged in."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from trainables import json_text
from trainables.lora.adapters import Adapter
from trainables.lora.choices import PRECISIONS
from trainables.lora.layers import LoraLayer
from trainables.lora.text.base import TextBase
from trainables.lora.text.conv1d import LoraConv1D
from trainables.lora.text.quantization import full_weight, is_quantised, was_turned
from trainables.lora.text.settings import QUANTIZATIONS, TEMPLATES
from tune_lora.errors import InputError, nearest

MIB = 2**20
ADAPTER, CONFIG, PROVENANCE = "adapter_model.safetensors", "adapter_config.json", "tune_lora.json"
_WORDS = {"template": TEMPLATES[1:], "precision": PRECISIONS, "quantization": QUANTIZATIONS}
"""What a provenance may say, where that is one of a few words."""
_PREFIX = "base_model.model."


def export_adapter(folder: Path, base: TextBase, adapter: Adapter, provenance: Mapping[str, Any]) -> Path:
    """Writes ``adapter_model.safetensors`` and ``adapter_config.json``, which ``PeftModel.from_pretrained`` loads, and
    ``tune_lora.json`` with where they come from; returns the folder. The adapter is attached."""
    folder.mkdir(parents=True, exist_ok=True)
    (layers,) = adapter.layers().values()
    state = {
        f"{_PREFIX}{name.partition('.')[2]}": tensor.contiguous() for name, tensor in adapter.state().items()
    }  # fmt: skip
    save_file(state, folder / ADAPTER, metadata={"format": "pt", "base_sha256": base.identity})
    config = _peft_config(base, layers)
    _write_json(folder / CONFIG, config)
    _write_json(folder / PROVENANCE, provenance)
    return folder


def _peft_config(base: TextBase, layers: Mapping[str, LoraLayer]) -> dict[str, Any]:
    """peft's LoraConfig. Layers whose rank is another than most have stand in its patterns."""
    ranks = {name: layer.rank for name, layer in layers.items()}
    alphas = {name: layer.alpha for name, layer in layers.items()}
    rank = max(set(ranks.values()), key=list(ranks.values()).count)
    usual = next(layer for layer in layers.values() if layer.rank == rank)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.label,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": usual.alpha,
        "lora_dropout": usual.dropout,
        "bias": "none",
        "use_dora": usual.lora_magnitude_vector is not None,
        "use_rslora": not math.isclose(usual.scale, usual.alpha / usual.rank),
        "fan_in_fan_out": any(isinstance(layer, LoraConv1D) for layer in layers.values()),
        "target_modules": _targets(base.model, layers),
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != usual.alpha},
    }


def _targets(model: nn.Module, layers: Mapping[str, LoraLayer]) -> list[str]:
    """The layers' last names where these mean exactly them, else their full names."""
    ends = sorted({name.rpartition(".")[2] for name in layers})
    meant = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in ends}
    return ends if meant == set(layers) else sorted(layers)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, default=str, ensure_ascii=False) + "\n", "utf-8")


# --- read back -------------------------------------------------------------------------------------------------------


def provenance_of(folder: Path) -> dict[str, Any]:
    """What `export_adapter` wrote of where an adapter comes from; of one made elsewhere nothing.

    Raises:
        InputError: the file cannot be what was written.
    """
    path = folder / PROVENANCE
    if not path.is_file():
        return {}
    found = _json_object(path)
    for name, known in _WORDS.items():
        if (value := found.get(name)) is not None and value not in known:
            raise InputError(f"{path}: {name}: got {value!r}; {nearest(str(value), known)}")
    return found


def base_of(folder: Path) -> str | None:
    """What an adapter says of the model it was trained on: in `tune_lora.json`, else to peft; None where it does not.

    Raises:
        InputError: one of the two files cannot be read.
    """
    own, peft = provenance_of(folder).get("base"), _json_object(folder / CONFIG).get("base_model_name_or_path")
    return str(own or peft) if own or peft else None


def _json_object(path: Path) -> dict[str, Any]:
    try:
        found = json_text.parse(path.read_text("utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path}: is no JSON object; must be as it was written beside the adapter")
    return found


def require_adapter(folder: Path) -> None:
    """Raises InputError where a folder does not hold an adapter in peft's layout."""
    missing = [name for name in (ADAPTER, CONFIG) if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: no {' and no '.join(missing)}; must be an adapter in peft's layout")
    try:
        with safe_open(folder / ADAPTER, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder / ADAPTER}: cannot be read ({str(error).splitlines()[0]})") from None


def load_adapter(base: TextBase, folder: Path) -> None:
    """Puts an adapter, ours or one made elsewhere, on the base through peft, for writing with it.

    Raises:
        InputError: it is none, or does not fit the base.
    """
    from peft import PeftModel

    require_adapter(folder)
    try:
        with warnings.catch_warnings():  # peft asks transformers by a name that is going out of use
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
            wrapped = PeftModel.from_pretrained(base.model, str(folder))
    except (ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"{folder}: does not fit the base {base.label} ({str(error).splitlines()[0]})") from None
    names = {name.removeprefix(_PREFIX).removesuffix(".weight") for name in load_file(folder / ADAPTER)}
    held = {
        name.replace(".default.weight", "").replace(".default", "").removesuffix(".weight")
        for name, _ in wrapped.base_model.model.named_parameters()
        if ".lora_" in name
    }
    if lost := sorted(names - held):
        raise InputError(f"{folder}: does not fit the base {base.label}: it has no place for {lost[0]}")
    base.model = wrapped.eval()


# --- merged ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def export_merged(folder: Path, base: TextBase, adapter: Adapter, provenance: Mapping[str, Any]) -> Path:
    """Writes the model with the adapter added to its weights, in the precision it is held in (a quantised one
    whole); ``AutoModelForCausalLM.from_pretrained`` loads the folder. The shared base is left as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    state = _merged_state(base.model, adapter)
    if any(is_quantised(module) for module in base.model.modules()):
        _write_whole_model(folder, base.model, state)
    else:
        base.model.save_pretrained(folder, state_dict=state)
    base.tokenizer.save_pretrained(folder)
    _write_json(folder / PROVENANCE, provenance)
    return folder


def _merged_state(model: nn.Module, adapter: Adapter) -> dict[str, torch.Tensor]:
    (layers,) = adapter.layers().values()
    quantised = [name.removesuffix(".base_layer") for name, module in model.named_modules() if is_quantised(module)]
    own = {name.replace(".base_layer.", "."): tensor for name, tensor in model.state_dict().items()}
    of_layers = tuple(f"{name}." for name in layers)
    packed = tuple(f"{name}." for name in quantised)
    state = {
        name: tensor
        for name, tensor in own.items()
        if not (name.startswith(of_layers) and ".lora_" in name)
        and not (name.startswith(packed) and ".bias" not in name)
    }
    dtype = model.dtype
    for name in dict.fromkeys([*quantised, *layers]):
        layer = layers.get(name)
        frozen = layer.base_layer if layer is not None else model.get_submodule(name)
        weight = full_weight(frozen)
        if layer is not None:
            weight = weight + _update(layer)
        if was_turned(frozen):
            weight = weight.T
        state[f"{name}.weight"] = weight.to(dtype).contiguous()  # type: ignore[arg-type]  # a model's attribute
    return state


def _update(layer: LoraLayer) -> torch.Tensor:
    """The weight update (outputs, inputs); a quantised weight has no shape to ask for."""
    if not is_quantised(layer.base_layer):
        return layer.delta()
    up, down = full_weight(layer.lora_B), full_weight(layer.lora_A)
    return layer.scale * (up @ down)


def _write_whole_model(folder: Path, model: Any, state: dict[str, torch.Tensor]) -> None:
    """As `save_pretrained`, which would write a quantised model as such."""
    from huggingface_hub import save_torch_state_dict

    config = json.loads(model.config.to_json_string(use_diff=False))
    config.pop("quantization_config", None)
    _write_json(folder / "config.json", config)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    save_torch_state_dict(state, str(folder))
