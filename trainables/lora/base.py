"""The frozen base model: loaded once per worker, from a diffusers folder, a single checkpoint file or by name, never
a network."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import SingleFileComponentError
from diffusers.utils.logging import disable_progress_bar
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from trainables.lora.paths import resolve_base
from tune_lora.errors import InputError

LARGE_SIDE = 256
"""Pixels from which a VAE works on one image at a time: at 512 each takes a gigabyte, and it is given 8 to 32."""


@dataclass
class Base:
    """A Stable Diffusion pipeline whose weights never change; adapters come and go.

    `noise_schedule` is the training schedule that belongs to the pipeline's scheduler. `identity` names the exact
    weights: caches are keyed by it.
    """

    pipeline: StableDiffusionPipeline
    noise_schedule: DDPMScheduler
    identity: str
    device: torch.device
    unet: UNet2DConditionModel = field(init=False)
    vae: AutoencoderKL = field(init=False)
    text_encoder: CLIPTextModel = field(init=False)
    tokenizer: CLIPTokenizer = field(init=False)

    def __post_init__(self) -> None:
        self.unet, self.vae = self.pipeline.unet, self.pipeline.vae
        self.text_encoder, self.tokenizer = self.pipeline.text_encoder, self.pipeline.tokenizer

    def tokens(self, captions: list[str]) -> torch.Tensor:
        """Token ids (N, context length), truncated and padded as the tokenizer says."""
        ids: torch.Tensor = self.tokenizer(
            captions, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        return ids.to(self.device)

    def text_states(self, ids: torch.Tensor) -> torch.Tensor:
        """Text states (N, context length, width), as the pipeline itself would condition on."""
        states: torch.Tensor = self.text_encoder(ids)[0]
        return states


def best_device() -> torch.device:
    """The GPU that this process was given, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(base: str, device: torch.device | None = None) -> Base:
    """Loads the base in fp32, frozen and in evaluation mode.

    Raises:
        InputError: the path is not a Stable Diffusion 1.x or 2.x pipeline.
    """
    path, device = resolve_base(base), device or best_device()
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        pipeline = _read(path)
    except NotImplementedError as error:  # torch, of a weight that diffusers found no values for
        raise InputError(f"base {base!r} is incomplete: weights are missing") from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, SingleFileComponentError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"base {base!r} cannot be loaded as a Stable Diffusion pipeline: {reason}") from error
    if absent := _absent(pipeline):
        raise InputError(f"base {base!r} is incomplete: weights are missing, first {absent[0]}")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    for model in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        model.requires_grad_(False)
        model.eval()
    if pipeline.vae.config.sample_size >= LARGE_SIDE:
        pipeline.vae.enable_slicing()
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    return Base(pipeline, schedule, _identity(path), device)


def _read(path: Path) -> StableDiffusionPipeline:
    options: dict[str, Any] = {
        "dtype": torch.float32,
        "local_files_only": True,
        "safety_checker": None,
        "requires_safety_checker": False,
        "feature_extractor": None,
    }
    if path.is_dir():
        return StableDiffusionPipeline.from_pretrained(str(path), **options)
    from trainables.lora.sd15_config import config_folder

    options.pop("feature_extractor")
    return StableDiffusionPipeline.from_single_file(str(path), config=str(config_folder()), **options)


def _absent(pipeline: StableDiffusionPipeline) -> list[str]:
    """Weights that a folder lacked: diffusers leaves them without values."""
    models = {"unet": pipeline.unet, "vae": pipeline.vae, "text_encoder": pipeline.text_encoder}
    return [
        f"{part}.{name}"
        for part, model in models.items()
        for name, weight in model.named_parameters()
        if weight.is_meta
    ]


def _identity(path: Path) -> str:
    """SHA-256 over the weight files' bytes and names."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
