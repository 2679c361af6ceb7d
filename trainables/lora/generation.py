"""Images out of a Stable Diffusion pipeline, one seed an image whatever the batch, and sheets of them to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    SchedulerMixin,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)

from trainables.lora.base import Base
from trainables.lora.buckets import Size
from trainables.lora.lora_tensors import LoraFile
from trainables.lora.paths import zero_terminal_mistake
from trainables.lora.sheet import Section, image_grid, write_comparison, write_image_grid

__all__ = [
    "Section", "generate", "image_grid", "sampler_of", "write_comparison", "write_image_grid", "zero_terminal_sampler",
]  # fmt: skip
Pipeline: TypeAlias = StableDiffusionPipeline | StableDiffusionXLPipeline


def generate(
    pipeline: Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = 25,
    guidance: float = 7.5,
    size: int | Size | None = None,
    batch_size: int = 8,
    scheduler: SchedulerMixin | None = None,
) -> np.ndarray:
    """Generates one image a prompt, float32 (N, height, width, 3) in 0..1. An image that is not finite is NaN
    throughout.

    Each image has its own generator, on the CPU: it depends on its prompt and its seed, not on its neighbours in the
    batch nor on the device's random numbers. `size` is width and height in pixels, or the side of a square; the
    pipeline's own by default. `scheduler` samples in place of the pipeline's. Whatever the denoiser computes in, noise
    is drawn and latents are decoded in fp32.

    Raises:
        ValueError: not as many seeds as prompts, or none.
    """
    if len(prompts) != len(seeds) or not prompts:
        raise ValueError(f"got {len(prompts)} prompts and {len(seeds)} seeds; must be as many, and at least one")
    size = size or pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    width, height = (size, size) if isinstance(size, int) else size
    batches = []
    models = (pipeline.unet, pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None), pipeline.vae)
    with _evaluating(*(model for model in models if model is not None)), _sampled_by(pipeline, scheduler):
        for start in range(0, len(prompts), batch_size):
            rows = slice(start, start + batch_size)
            generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds[rows]]
            output = pipeline(
                list(prompts[rows]),
                height=height,
                width=width,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=generators,
                latents=_noise(pipeline, generators, height, width),
                output_type="latent",
            )
            batches.append(_decoded(pipeline, output.images))
    images = np.concatenate(batches)
    images[~np.isfinite(images).all(axis=(1, 2, 3))] = np.nan
    return images


def zero_terminal_sampler(schedule: DDPMScheduler) -> DDIMScheduler:
    """What samples after training whose last step is pure noise: it begins at that step (trailing spacing), with the
    betas that were trained with (Lin et al. 2023, arXiv 2305.08891, sections 3.1 and 3.3; deterministic, as theirs)."""
    return DDIMScheduler.from_config(
        schedule.config, rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False
    )


def sampler_of(file: LoraFile, base: Base) -> DDIMScheduler | None:
    """What a LoRA file has to be sampled with on a base; None where that is the base's own sampler."""
    if not file.ends_in_pure_noise or zero_terminal_mistake(base.prediction_type):
        return None
    return zero_terminal_sampler(base.noise_schedule)


@contextmanager
def _sampled_by(pipeline: Pipeline, scheduler: SchedulerMixin | None) -> Iterator[None]:
    """With another scheduler for as long."""
    own = pipeline.scheduler
    if scheduler is not None:
        pipeline.scheduler = scheduler
    try:
        yield
    finally:
        pipeline.scheduler = own


def _noise(pipeline: Pipeline, generators: Sequence[torch.Generator], height: int, width: int) -> torch.Tensor:
    """The start of each image (N, channels, height, width of latents)."""
    factor = pipeline.vae_scale_factor
    shape = (1, pipeline.unet.config.in_channels, height // factor, width // factor)
    drawn = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
    return drawn.to(pipeline.unet.device, pipeline.unet.dtype)


@torch.no_grad()
def _decoded(pipeline: Pipeline, latents: torch.Tensor) -> np.ndarray:
    """Pixels (N, height, width, 3) in 0..1; the autoencoder works in its own precision, whatever surrounds it."""
    with torch.autocast(latents.device.type, enabled=False):
        scaled = latents.to(pipeline.vae.dtype) / pipeline.vae.config.scaling_factor
        decoded = pipeline.vae.decode(scaled, return_dict=False)[0]
    pixels: np.ndarray = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float().cpu().numpy()
    return pixels


@contextmanager
def _evaluating(*models: torch.nn.Module) -> Iterator[None]:
    """Without dropout, which would make images differ between calls."""
    training = [module for model in models for module in model.modules() if module.training]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
