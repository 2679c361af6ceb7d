"""The frozen base model: loaded once per worker, from a diffusers folder, a single checkpoint file or by name, never
a network."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders.single_file_utils import SingleFileComponentError
from diffusers.utils.logging import disable_progress_bar
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from trainables.lora.base_configs import config_folder
from trainables.lora.base_weights import CLASSES, Incomplete, identity_of, load_part
from trainables.lora.conditioning import Conditioning, condition
from trainables.lora.paths import PREDICTIONS, file_layout, prediction_of, resolve_base
from tune_lora.errors import InputError

LARGE_SIDE = 256
"""Pixels from which a VAE works on one image at a time: at 512 each takes a gigabyte, and it is given 8 to 32."""


@dataclass(frozen=True)
class Base:
    """A Stable Diffusion pipeline whose weights never change; adapters come and go.

    `noise_schedule` is the training schedule that belongs to the pipeline's scheduler. `identity` names the exact
    weights: caches are keyed by it.
    """

    pipeline: StableDiffusionPipeline | StableDiffusionXLPipeline
    noise_schedule: DDPMScheduler
    identity: str
    device: torch.device

    @property
    def unet(self) -> UNet2DConditionModel:
        """The denoiser."""
        return self.pipeline.unet

    @property
    def vae(self) -> AutoencoderKL:
        """The autoencoder, always in single precision."""
        return self.pipeline.vae

    @property
    def text_encoder(self) -> CLIPTextModel:
        """The first text encoder, of most bases the only one."""
        return self.pipeline.text_encoder

    @property
    def tokenizer(self) -> CLIPTokenizer:
        """The first text encoder's tokenizer."""
        return self.pipeline.tokenizer

    @property
    def text_encoders(self) -> Mapping[str, torch.nn.Module]:
        """The text encoders by name: ``text_encoder``, and for SDXL ``text_encoder_2``."""
        return {name: model for name in ("text_encoder", "text_encoder_2") if (model := self._part(name)) is not None}

    @property
    def models(self) -> Mapping[str, torch.nn.Module]:
        """What adapters may be put on: ``unet`` and the text encoders."""
        return {"unet": self.unet, **self.text_encoders}

    @property
    def prediction_type(self) -> str:
        """What the denoiser says: ``epsilon`` (the noise) or ``v_prediction``."""
        return str(self.noise_schedule.config.prediction_type)

    @property
    def pixels_per_latent(self) -> int:
        """How many times smaller latents are than images, a side."""
        return int(self.pipeline.vae_scale_factor)

    def condition(self, captions: Sequence[str]) -> Conditioning:
        """What the denoiser is told of captions, as the pipeline itself conditions; captions past the tokenizer's
        length are cut off."""
        tokenizers = [self._part(name) for name in ("tokenizer", "tokenizer_2")]
        return condition(
            captions, [one for one in tokenizers if one is not None], list(self.text_encoders.values()), self.device
        )

    def _part(self, name: str) -> Any:
        return getattr(self.pipeline, name, None)


def best_device() -> torch.device:
    """The GPU that this process was given, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(
    base: str,
    device: torch.device | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    prediction_type: str | None = None,
) -> Base:
    """Loads the base frozen and in evaluation mode; on the CPU its weights are mapped, and shared between processes.

    `dtype` is that of the denoiser and the text encoders; the autoencoder is always fp32, since in half precision some
    give NaN. `prediction_type` is for a base that does not say what it predicts, or says it wrongly.

    Raises:
        InputError: the path is not a pipeline of Stable Diffusion 1.x, 2.x or SDXL base.
    """
    path, device = resolve_base(base), device or best_device()
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    disable_progress_bar()
    transformers_logging.disable_progress_bar()
    prediction = prediction_of(path, prediction_type)
    if prediction not in PREDICTIONS:
        raise InputError(f"base {base!r} predicts {prediction!r}; must be {' or '.join(PREDICTIONS)}")
    identity = identity_of(path)
    try:
        pipeline = _pipeline(path, identity, dtype, prediction)
    except Incomplete as error:
        raise InputError(f"base {base!r} is incomplete: weights are missing, first {error}") from error
    except NotImplementedError as error:  # torch, of a weight that diffusers found no values for
        raise InputError(f"base {base!r} is incomplete: weights are missing") from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, SingleFileComponentError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"base {base!r} cannot be loaded as a Stable Diffusion pipeline: {reason}") from error
    pipeline.to(device)
    if device.type == "cuda":  # where convolutions are fastest so; on a CPU it would copy what is shared
        pipeline.unet.to(memory_format=torch.channels_last)
    if pipeline.vae.config.sample_size >= LARGE_SIDE:
        pipeline.vae.enable_slicing()
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    return Base(pipeline, schedule, identity, device)


def _pipeline(
    path: Path, identity: str, dtype: torch.dtype, prediction: str
) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    config = path if path.is_dir() else config_folder(_config_of(path, prediction))
    index = json.loads((config / "model_index.json").read_text("utf-8"))
    large = index["_class_name"] == "StableDiffusionXLPipeline"
    parts: dict[str, Any] = {
        part: load_part(part, path, config, identity, torch.float32 if part == "vae" else dtype)
        for part in CLASSES
        if large or part != "text_encoder_2"
    }
    for name in ("tokenizer", "tokenizer_2") if large else ("tokenizer",):
        parts[name] = CLIPTokenizer.from_pretrained(str(config / name), local_files_only=True)
    parts["scheduler"] = _scheduler(config, prediction)
    if large:
        zeros = bool(index.get("force_zeros_for_empty_prompt", True))
        pipeline = StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False)
    else:
        pipeline = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _config_of(path: Path, prediction: str) -> str:
    """The shipped configuration of a checkpoint file."""
    config = file_layout(path).config
    return "sd21-base" if config == "sd21" and prediction == "epsilon" else config


def _scheduler(config: Path, prediction: str) -> Any:
    settings = json.loads((config / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    known = getattr(diffusers, str(settings.get("_class_name")), None)
    if known is None:
        raise ValueError(f"unknown scheduler {settings.get('_class_name')!r}")
    return known.from_config(settings, prediction_type=prediction)
