"""Where caches and base models live. Loads no torch."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from trainables.tiny_sd import WEIGHTS
from tune_lora.errors import InputError

TINY_SD = "tiny-sd"
_PARTS = ("model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler")
_PIPELINE = "StableDiffusionPipeline"
_CHECKPOINT = "must be a Stable Diffusion 1.x checkpoint, or a pipeline's folder in diffusers' layout"
_PREFIXES = {
    "UNet": "model.diffusion_model.",
    "VAE": "first_stage_model.",
    "text encoder": "cond_stage_model.transformer.text_model.",
}
"""How the names of a checkpoint's tensors begin, by what they belong to."""


def cache_folder() -> Path:
    """``TUNE_LORA_CACHE``, else ``tune-lora`` under the user's cache folder. May not exist yet."""
    if chosen := os.environ.get("TUNE_LORA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tune-lora"


def resolve_base(base: str) -> Path:
    """The path that a study's ``base`` stands for; of a checkpoint file the names of its tensors are read.

    Raises:
        InputError: it is neither a known name, nor a diffusers folder of Stable Diffusion, nor a ``.safetensors``
            checkpoint of Stable Diffusion 1.x.
    """
    path = WEIGHTS if base == TINY_SD else Path(base).expanduser()
    if not path.exists():
        raise InputError(
            f"base {base!r} does not exist; must be a diffusers folder, a .safetensors file or {TINY_SD!r}"
        )
    if mistake := _folder_mistake(path) if path.is_dir() else _file_mistake(path):
        raise InputError(f"base {base!r}: {mistake}")
    return path


def _folder_mistake(path: Path) -> str | None:
    missing = [part for part in _PARTS if not (path / part).exists()]
    if missing:
        return f"the folder lacks {', '.join(missing)}; must be a pipeline in diffusers' layout"
    try:
        index = json.loads((path / "model_index.json").read_text("utf-8"))
    except (OSError, ValueError):
        return "model_index.json cannot be read as JSON; must be a pipeline in diffusers' layout"
    kind = index.get("_class_name") if isinstance(index, dict) else None
    return None if kind == _PIPELINE else f"holds a {kind}; must be a {_PIPELINE} (Stable Diffusion 1.x or 2.x)"


def _file_mistake(path: Path) -> str | None:
    if path.suffix != ".safetensors":
        return f"is a {path.suffix or 'plain'} file; must be a diffusers folder or a .safetensors file"
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
    except (SafetensorError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"cannot be read as safetensors ({reason}); {_CHECKPOINT}"
    if any(".lora_" in name for name in names):
        return f"is a LoRA, not a base model; {_CHECKPOINT}"
    absent = [part for part, prefix in _PREFIXES.items() if not any(name.startswith(prefix) for name in names)]
    return f"has no {' and no '.join(absent)} of Stable Diffusion 1.x; {_CHECKPOINT}" if absent else None
