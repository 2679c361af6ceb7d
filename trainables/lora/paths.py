"""Where base models live, and which Stable Diffusion a path holds. Loads no torch."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from trainables import json_text
from trainables.lora.layouts import (
    CHECKPOINT,
    V_PREDICTION_MARK,
    Layout,
    Shapes,
    channels_mistake,
    layout_of,
    mistake_of,
)
from trainables.tiny_sd import WEIGHTS
from tune_lora.errors import InputError

TINY_SD = "tiny-sd"
PREDICTIONS = ("epsilon", "v_prediction")
"""What a denoiser may say: the noise, or the velocity."""
_PARTS = ("model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler")
_PIPELINES = {
    "StableDiffusionPipeline": _PARTS,
    "StableDiffusionXLPipeline": (*_PARTS, "text_encoder_2", "tokenizer_2"),
}


def resolve_base(base: str) -> Path:
    """The path that a study's ``base`` stands for; of a checkpoint file the names of its tensors are read.

    Raises:
        InputError: it is neither a known name, nor a diffusers folder of Stable Diffusion, nor a ``.safetensors``
            checkpoint of Stable Diffusion 1.x, 2.x or SDXL base.
    """
    path = WEIGHTS if base == TINY_SD else Path(base).expanduser()
    if not path.exists():
        raise InputError(
            f"base {base!r} does not exist; must be a diffusers folder, a .safetensors file or {TINY_SD!r}"
        )
    if mistake := _folder_mistake(path) if path.is_dir() else _file_mistake(path):
        raise InputError(f"base {base!r}: {mistake}")
    return path


def file_layout(path: Path) -> Layout:
    """The family of a checkpoint file that `resolve_base` let pass.

    Raises:
        ValueError: it is none of ours.
    """
    layout = layout_of(_shapes(path))
    if layout is None:
        raise ValueError(f"{path} holds no known layout")
    return layout


def prediction_of(path: Path, chosen: str | None = None) -> str:
    """What the denoiser at a resolved path says: `chosen`, else as the pipeline's scheduler is set.

    Of a single file of Stable Diffusion 2.x the tensors do not tell; without a choice it is taken for the 768-pixel
    model, which predicts velocities.
    """
    if chosen is not None:
        return chosen
    if path.is_dir():
        settings = _json(path / "scheduler" / "scheduler_config.json") or {}
        return str(settings.get("prediction_type", "epsilon"))
    shapes = _shapes(path)
    layout = layout_of(shapes)
    velocity = V_PREDICTION_MARK in shapes or (layout is not None and layout.config == "sd21")
    return "v_prediction" if velocity else "epsilon"


def zero_terminal_mistake(prediction: str) -> str | None:
    """What to say to who asks for a zero-terminal SNR: a base that predicts the noise cannot learn from pure noise, for
    there the answer is given (Lin et al. 2023, section 3.2)."""
    if prediction == "v_prediction":
        return None
    return (
        f"zero_terminal_snr: got true with a base that predicts {prediction}; must be false, or the base one of "
        "v_prediction, such as Stable Diffusion 2.1 for 768 pixels"
    )


def _folder_mistake(path: Path) -> str | None:
    index = _json(path / "model_index.json") if (path / "model_index.json").exists() else {}
    if index is None:
        return "model_index.json cannot be read as JSON; must be a pipeline in diffusers' layout"
    kind = index.get("_class_name")
    missing = [part for part in _PIPELINES.get(str(kind), _PARTS) if not (path / part).exists()]
    if missing:
        return f"the folder lacks {', '.join(missing)}; must be a pipeline in diffusers' layout"
    if kind not in _PIPELINES:
        return f"holds a {kind}; must be a {' or a '.join(_PIPELINES)} (Stable Diffusion 1.x, 2.x or SDXL base)"
    return channels_mistake(int((_json(path / "unet" / "config.json") or {}).get("in_channels", 4)))


def _file_mistake(path: Path) -> str | None:
    if path.suffix != ".safetensors":
        return f"is a {path.suffix or 'plain'} file; must be a diffusers folder or a .safetensors file"
    try:
        shapes = _shapes(path)
    except (SafetensorError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"cannot be read as safetensors ({reason}); {CHECKPOINT}"
    return mistake_of(shapes)


def _shapes(path: Path) -> Shapes:
    state = path.stat()
    return _shapes_then(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _shapes_then(path: Path, _size: int, _mtime_ns: int) -> Shapes:
    with safe_open(path, framework="numpy") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json_text.parse(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
