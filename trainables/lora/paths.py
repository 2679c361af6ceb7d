"""Where caches and base models live. Loads no torch."""

from __future__ import annotations

import os
from pathlib import Path

from trainables.tiny_sd import WEIGHTS
from tune_lora.errors import InputError

TINY_SD = "tiny-sd"
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def cache_folder() -> Path:
    """``TUNE_LORA_CACHE``, else ``tune-lora`` under the user's cache folder. May not exist yet."""
    if chosen := os.environ.get("TUNE_LORA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tune-lora"


def resolve_base(base: str) -> Path:
    """The path that a study's ``base`` stands for.

    Raises:
        InputError: it is neither a known name, nor a diffusers folder, nor a ``.safetensors`` file.
    """
    path = WEIGHTS if base == TINY_SD else Path(base).expanduser()
    if path.is_dir():
        missing = [part for part in _PARTS if not (path / part).is_dir()]
        if missing:
            raise InputError(
                f"base {base!r}: the folder lacks {', '.join(missing)}; must be a pipeline in diffusers' layout"
            )
        return path
    if not path.exists():
        raise InputError(
            f"base {base!r} does not exist; must be a diffusers folder, a .safetensors file or {TINY_SD!r}"
        )
    if path.suffix != ".safetensors":
        raise InputError(
            f"base {base!r} is a {path.suffix or 'plain'} file; must be a diffusers folder or a .safetensors file"
        )
    return path
