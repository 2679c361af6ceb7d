"""Images out of a Stable Diffusion pipeline, one seed an image whatever the batch, and sheets of them to look at."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from trainables.lora.meter import Charge
from trainables.lora.packed_layers import Routing, Share
from trainables.lora.paths import zero_terminal_mistake
from trainables.lora.sheet import Section, image_grid, write_comparison, write_image_grid

__all__ = [
    "IMAGES_AT_ONCE", "Drawers", "Section", "generate", "image_grid", "sampler_of", "write_comparison",
    "write_image_grid", "zero_terminal_sampler",
]  # fmt: skip
Pipeline: TypeAlias = StableDiffusionPipeline | StableDiffusionXLPipeline
IMAGES_AT_ONCE = 8
"""In one pass, unless memory is known to suffice for more."""


@dataclass(frozen=True)
class Drawers:
    """Whose adapter draws each image, where several share the pipeline's models."""

    slots: Sequence[int]
    routing: Routing
    charge: Charge

    def begin(self, pipeline: Pipeline, rows: slice, *, guided: bool) -> None:
        """The next images are these; a guided denoiser is asked about all of them without their prompts, then with."""
        shares = [Share(slot, len(list(images))) for slot, images in itertools.groupby(self.slots[rows])]
        self.routing.tell(_text_encoders(pipeline), shares)
        times = 2 if guided else 1
        same = [Share(share.slot, times * share.rows) for share in shares]
        self.routing.tell([pipeline.unet], same if len(shares) == 1 else shares * times)

    def end(self, rows: slice) -> None:
        """They are drawn."""
        slots = self.slots[rows]
        self.charge({slot: slots.count(slot) for slot in slots})


def generate(
    pipeline: Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = 25,
    guidance: float = 7.5,
    size: int | Size | None = None,
    batch_size: int = IMAGES_AT_ONCE,
    scheduler: SchedulerMixin | None = None,
    drawers: Drawers | None = None,
) -> np.ndarray:
    """Generates one image a prompt, float32 (N, height, width, 3) in 0..1. An image that is not finite is NaN
    throughout.

    Each image has its own generator, on the CPU: it depends on its prompt and its seed, not on its neighbours in the
    batch nor on the device's random numbers. `size` is width and height in pixels, or the side of a square; the
    pipeline's own by default. `scheduler` samples in place of the pipeline's. Whatever the denoiser computes in, noise
    is drawn and latents are decoded in fp32. Where a GPU has no memory for a batch, half of it is tried.

    Raises:
        ValueError: not as many seeds as prompts, or none.
    """
    if len(prompts) != len(seeds) or not prompts:
        raise ValueError(f"got {len(prompts)} prompts and {len(seeds)} seeds; must be as many, and at least one")
    size = size or pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    width, height = (size, size) if isinstance(size, int) else size

    def drawn(rows: slice) -> np.ndarray:
        if drawers is not None:
            drawers.begin(pipeline, rows, guided=guidance > 1)  # the pipelines' own condition
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
        found = _decoded(pipeline, output.images)
        if drawers is not None:
            drawers.end(rows)
        return found

    with (
        _evaluating(pipeline.unet, *_text_encoders(pipeline), pipeline.vae),
        _sampled_by(pipeline, scheduler),
    ):
        images = np.concatenate(list(_in_batches(drawn, len(prompts), batch_size)))
    images[~np.isfinite(images).all(axis=(1, 2, 3))] = np.nan
    return images


def _in_batches(drawn: Callable[[slice], np.ndarray], count: int, size: int) -> Iterator[np.ndarray]:
    """All of them, so many at a time; half as many from where a GPU's memory does not suffice."""
    start = 0
    while start < count:
        size = min(size, count - start)
        try:
            found = drawn(slice(start, start + size))
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size = -(-size // 2)
            continue
        yield found
        start += size


def _text_encoders(pipeline: Pipeline) -> list[torch.nn.Module]:
    models = (pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None))
    return [model for model in models if model is not None]


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
