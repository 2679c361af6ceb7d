"""Images out of a Stable Diffusion pipeline, one seed an image whatever the batch, and sheets of them to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from trainables.lora.sheet import Section, image_grid, write_comparison, write_image_grid

__all__ = ["Section", "generate", "image_grid", "write_comparison", "write_image_grid"]


def generate(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = 25,
    guidance: float = 7.5,
    size: int | None = None,
    batch_size: int = 8,
) -> np.ndarray:
    """Generates one image a prompt, float32 (N, size, size, 3) in 0..1. An image that is not finite is NaN throughout.

    Each image has its own generator, on the CPU: it depends on its prompt and its seed, not on its neighbours in the
    batch nor on the device's random numbers. `size` is in pixels, the pipeline's own by default.

    Raises:
        ValueError: not as many seeds as prompts, or none.
    """
    if len(prompts) != len(seeds) or not prompts:
        raise ValueError(f"got {len(prompts)} prompts and {len(seeds)} seeds; must be as many, and at least one")
    side = size or pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    batches = []
    with _evaluating(pipeline.unet, pipeline.text_encoder, pipeline.vae):
        for start in range(0, len(prompts), batch_size):
            rows = slice(start, start + batch_size)
            output = pipeline(
                list(prompts[rows]),
                height=side,
                width=side,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds[rows]],
                output_type="np",
            )
            batches.append(np.asarray(output.images, dtype=np.float32))
    images = np.concatenate(batches)
    images[~np.isfinite(images).all(axis=(1, 2, 3))] = np.nan
    return images


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
