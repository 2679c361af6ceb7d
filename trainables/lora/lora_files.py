"""Loading a LoRA file into a pipeline, whichever of the two layouts it has, with an answer where it does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError, safe_open

from tune_lora.errors import InputError

_KOHYA_PREFIXES = {"lora_unet_": "unet", "lora_te_": "text_encoder", "lora_te1_": "text_encoder"}
_WANTED = "must be a LoRA in diffusers' (lora_A, lora_B) or kohya's (lora_down, lora_up) layout"


@dataclass(frozen=True)
class _Module:
    """One adapted module as a file has it: its name there, and the sizes that it reads and writes."""

    part: str
    name: str
    inputs: int
    outputs: int


def load_lora(pipeline: StableDiffusionPipeline, path: Path, adapter_name: str = "lora") -> None:
    """Puts the LoRA of a ``.safetensors`` file into the pipeline; ``pipeline.unload_lora_weights()`` takes it out.

    Raises:
        InputError: the file is not a LoRA, is damaged, or was made for another base; the pipeline is then untouched.
    """
    shapes = _shapes(path)
    modules = _modules(path, shapes)
    linear = _base_layers(pipeline)
    misfits = [problem for module in modules if (problem := _misfit(module, linear))]
    if misfits:
        raise InputError(f"{path}: {len(misfits)} of {len(modules)} modules do not fit this base; {misfits[0]}")
    pipeline.load_lora_weights(
        str(path.parent), weight_name=path.name, adapter_name=adapter_name, local_files_only=True
    )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    if not path.is_file():
        raise InputError(f"{path} does not exist; {_WANTED}, a .safetensors file")
    if path.suffix != ".safetensors":
        raise InputError(f"{path} is a {path.suffix or 'plain'} file; {_WANTED}, a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read as safetensors ({reason}); {_WANTED}") from None


def _modules(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> list[_Module]:
    down, up = _pair_names(shapes)
    modules = []
    for name, shape in shapes.items():
        if not name.endswith(down):
            continue
        stem = name.removesuffix(down)
        other = shapes.get(f"{stem}{up}")
        if other is None or len(shape) < 2 or len(other) < 2 or shape[0] != other[1]:
            raise InputError(f"{path}: {stem} has no matching pair of matrices; {_WANTED}")
        modules.append(_Module(*_place(path, stem), inputs=shape[1], outputs=other[0]))
    if not modules:
        got = ", ".join(list(shapes)[:2]) or "nothing"
        raise InputError(f"{path} is not a LoRA: it holds {got}; {_WANTED}")
    return modules


def _pair_names(shapes: Mapping[str, object]) -> tuple[str, str]:
    if any(name.startswith(tuple(_KOHYA_PREFIXES)) for name in shapes):
        return ".lora_down.weight", ".lora_up.weight"
    return ".lora_A.weight", ".lora_B.weight"


def _place(path: Path, stem: str) -> tuple[str, str]:
    """The part of the pipeline and the module's name in it, with underscores for dots: kohya has only those."""
    for prefix, part in _KOHYA_PREFIXES.items():
        if stem.startswith(prefix):
            return part, stem.removeprefix(prefix).removeprefix("text_model_")
    part, _, name = stem.partition(".")
    if part not in ("unet", "text_encoder"):
        raise InputError(f"{path}: {stem} is for {part!r}, which this base does not have; it has unet, text_encoder")
    return part, name.removeprefix("text_model.").replace(".", "_")


def _base_layers(pipeline: StableDiffusionPipeline) -> dict[tuple[str, str], tuple[int, int]]:
    """Inputs and outputs of each layer that can be adapted, by part and name with underscores."""
    layers = {}
    for part in ("unet", "text_encoder"):
        for name, module in getattr(pipeline, part).named_modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                outputs, inputs = module.weight.shape[:2]
                key = name.removeprefix("text_model.").replace(".base_layer", "").replace(".", "_")
                layers[part, key] = (inputs, outputs)
    return layers


def _misfit(module: _Module, layers: Mapping[tuple[str, str], tuple[int, int]]) -> str:
    known = layers.get((module.part, module.name))
    if known is None:
        return f"{module.part} has no {module.name}"
    if known != (module.inputs, module.outputs):
        got, wanted = f"{module.inputs} to {module.outputs}", f"{known[0]} to {known[1]}"
        return f"{module.part} {module.name} goes from {got} in the file, and from {wanted} in the base"
    return ""
