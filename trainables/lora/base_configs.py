"""Configurations of the known pipelines as folders, since a single checkpoint file carries none and no hub is asked.

Numbers are those of the published models; what is not said is the default of diffusers and transformers.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.paths import cache_folder

_VERSION = 2  # raise it when what is written changes


@dataclass(frozen=True)
class Pipeline:
    """One pipeline: the settings of each part by its folder, and the padding word of each tokenizer."""

    name: str
    scheduler: tuple[str, Mapping[str, Any]]
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoders: Mapping[str, Mapping[str, Any]]
    padding: Mapping[str, str]


_END = "<|endoftext|>"
_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
_VELOCITY = {"prediction_type": "v_prediction"}
_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
_CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
# The last of OpenCLIP H's 24 layers is left out: SD 2.x is conditioned on the one before it.
_CLIP_H = _CLIP_L | {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
}
_CLIP_G = _CLIP_L | {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
_UNET_2 = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
_UNET_XL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_STABLE, _XL = "StableDiffusionPipeline", "StableDiffusionXLPipeline"
PIPELINES: Mapping[str, Pipeline] = {
    "sd15": Pipeline(
        _STABLE,
        ("PNDMScheduler", _BETAS | {"skip_prk_steps": True}),
        {"sample_size": 64, "cross_attention_dim": 768},
        _VAE | {"sample_size": 512},
        {"text_encoder": _CLIP_L},
        {"tokenizer": _END},
    ),
    "sd21": Pipeline(
        _STABLE,
        (
            "DDIMScheduler",
            _BETAS | {"clip_sample": False, "set_alpha_to_one": False, "prediction_type": "v_prediction"},
        ),
        _UNET_2 | {"sample_size": 96, "upcast_attention": True},
        _VAE | {"sample_size": 768},
        {"text_encoder": _CLIP_H},
        {"tokenizer": "!"},
    ),
    "sd21-base": Pipeline(
        _STABLE,
        ("PNDMScheduler", _BETAS | {"skip_prk_steps": True, "prediction_type": "epsilon"}),
        _UNET_2 | {"sample_size": 64},
        _VAE | {"sample_size": 768},
        {"text_encoder": _CLIP_H},
        {"tokenizer": "!"},
    ),
    "sdxl": Pipeline(
        _XL,
        ("EulerDiscreteScheduler", _BETAS | {"timestep_spacing": "leading"}),
        _UNET_XL,
        _VAE | {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
        {"text_encoder": _CLIP_L, "text_encoder_2": _CLIP_G},
        {"tokenizer": _END, "tokenizer_2": "!"},
    ),
}


def config_folder(name: str) -> Path:
    """A folder with the configurations (no weights) of every part of a pipeline of `PIPELINES`; written once into the
    cache."""
    folder = cache_folder() / f"config-{_VERSION}-{name}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent))
        write_config(PIPELINES[name], scratch)
        try:
            scratch.replace(folder)
        except OSError:  # another process was first, and its folder is the same
            shutil.rmtree(scratch)
    return folder


def write_config(pipeline: Pipeline, folder: Path) -> None:
    """Writes `pipeline` in diffusers' layout, without weights."""
    import accelerate
    import diffusers

    from trainables.tiny_sd.architecture import write_tokenizer

    scheduler, settings = pipeline.scheduler
    (folder / "model_index.json").write_text(json.dumps(_index(pipeline), indent=2) + "\n", "utf-8")
    with accelerate.init_empty_weights():
        diffusers.UNet2DConditionModel(**pipeline.unet).save_config(folder / "unet")
        diffusers.AutoencoderKL(**pipeline.vae).save_config(folder / "vae")
    for part, numbers in pipeline.text_encoders.items():
        _write_text_config(folder / part, numbers)
    getattr(diffusers, scheduler)(**settings).save_config(folder / "scheduler")
    for part, padding in pipeline.padding.items():
        write_tokenizer(folder / part, 77, padding)


def _write_text_config(folder: Path, numbers: Mapping[str, Any]) -> None:
    from transformers import CLIPTextConfig

    text = CLIPTextConfig(**numbers)
    text.architectures = [_text_class(folder.name)]
    text.save_pretrained(folder)


def _text_class(part: str) -> str:
    return "CLIPTextModelWithProjection" if part == "text_encoder_2" else "CLIPTextModel"


def _index(pipeline: Pipeline) -> dict[str, Any]:
    index: dict[str, Any] = {
        "_class_name": pipeline.name,
        "scheduler": ["diffusers", pipeline.scheduler[0]],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    index |= {part: ["transformers", _text_class(part)] for part in pipeline.text_encoders}
    index |= {part: ["transformers", "CLIPTokenizer"] for part in pipeline.padding}
    if pipeline.name == _XL:
        return index | {"force_zeros_for_empty_prompt": True}
    return index | {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
