"""What a batch and a loss are in diffusion training: noise, timesteps, targets and their weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler

from trainables.lora.base import Base
from trainables.lora.cache import Latents
from trainables.lora.conditioning import Conditioning
from trainables.lora.paths import zero_terminal_mistake
from tune_lora.errors import InputError


def draw_noise(shape: tuple[int, ...], generator: torch.Generator, noise_offset: float = 0.0) -> torch.Tensor:
    """Gaussian noise (N, C, H, W) on the CPU, the same for every device; with `noise_offset` each channel of an image
    is shifted by chance, which teaches dark and bright pictures (Guttenberg 2023)."""
    noise = torch.randn(shape, generator=generator)
    if noise_offset:
        noise += noise_offset * torch.randn((*shape[:2], 1, 1), generator=generator)
    return noise


def training_schedule(base: Base, *, zero_terminal_snr: bool = False) -> DDPMScheduler:
    """The base's own schedule, or the same with betas rescaled so that the last step is pure noise (Lin et al. 2023,
    algorithm 1).

    Raises:
        InputError: the base predicts the noise, which at pure noise says nothing of the image.
    """
    if not zero_terminal_snr:
        return base.noise_schedule
    if mistake := zero_terminal_mistake(base.prediction_type):
        raise InputError(mistake)
    return DDPMScheduler.from_config(base.noise_schedule.config, rescale_betas_zero_snr=True)


def snr(schedule: DDPMScheduler, timesteps: torch.Tensor) -> torch.Tensor:
    """Signal-to-noise ratio at each timestep, shape of `timesteps`."""
    alphas = schedule.alphas_cumprod.to(timesteps.device)[timesteps]
    return alphas / (1 - alphas)


def min_snr_weight(schedule: DDPMScheduler, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Loss weights by Min-SNR (Hang et al. 2023): min(snr, gamma) over snr, or over snr + 1 for v-prediction; finite
    where there is no signal."""
    ratio = snr(schedule, timesteps)
    if schedule.config.prediction_type == "v_prediction":
        return ratio.clamp(max=gamma) / (ratio + 1)
    return torch.where(ratio > gamma, gamma / ratio, torch.ones_like(ratio))


def target(schedule: DDPMScheduler, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """What the denoiser should say: the noise, or the velocity."""
    if schedule.config.prediction_type == "v_prediction":
        velocity: torch.Tensor = schedule.get_velocity(clean, noise, timesteps)
        return velocity
    return noise


def denoising_loss(
    base: Base,
    clean: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    conditioning: Conditioning,
    *,
    schedule: DDPMScheduler | None = None,
    min_snr_gamma: float = 0.0,
) -> torch.Tensor:
    """Mean squared error of the denoiser over a batch of latents (N, C, H, W), optionally Min-SNR weighted (gamma >
    0). All tensors are on the base's device; the error is fp32 in whatever the denoiser computes."""
    schedule = schedule or base.noise_schedule
    noisy = schedule.add_noise(clean, noise, timesteps).to(base.unet.dtype)
    height, width = (side * base.pixels_per_latent for side in clean.shape[-2:])
    predicted = base.unet(
        noisy,
        timesteps,
        conditioning.states.to(noisy.dtype),
        added_cond_kwargs=conditioning.added(height, width),
        return_dict=False,
    )[0]
    wanted = target(schedule, clean, noise, timesteps)
    error = F.mse_loss(predicted.float(), wanted, reduction="none").mean((1, 2, 3))
    if min_snr_gamma > 0:
        error = error * min_snr_weight(schedule, timesteps, min_snr_gamma)
    return error.mean()


@torch.inference_mode()
def validation_loss(
    base: Base,
    latents: Latents,
    conditioning: Conditioning,
    *,
    draws: int = 4,
    batch: int = 32,
    autocast: AbstractContextManager[object] | None = None,
) -> float:
    """Unweighted error on held-out latents, at noise and timesteps that never change, under the base's own schedule.

    `conditioning` has a row for each image of `latents`. Each image is seen at `draws` timesteps, spread evenly and
    staggered between images.
    """
    generator = torch.Generator().manual_seed(20_000)
    count, total = len(latents.images), 0.0
    with autocast or nullcontext():
        for rows, timesteps in _looks(latents, draws, base.noise_schedule.config.num_train_timesteps):
            noise = torch.randn((len(rows), *latents.mean(rows[:1]).shape[1:]), generator=generator)
            for start in range(0, len(rows), batch):
                part = slice(start, start + batch)
                told = conditioning.rows(rows[part])
                told = Conditioning(told.states, told.pooled, latents.time_ids(rows[part]))
                seen = (latents.mean(rows[part]), noise[part], timesteps[part])
                clean, drawn, steps = (tensor.to(base.device) for tensor in seen)
                loss = denoising_loss(base, clean, drawn, steps, told)
                total += float(loss) * len(rows[part])
    return total / (count * draws)


def _looks(latents: Latents, draws: int, span: int) -> Iterator[tuple[list[int], torch.Tensor]]:
    """For each bucket its rows, each as often as there are draws, and their timesteps."""
    count = len(latents.images)
    for group in latents.groups():
        rows = torch.tensor(group).repeat_interleave(draws)
        positions = (torch.arange(draws).repeat(len(group)) + (rows + 0.5) / count) / draws
        yield rows.tolist(), (positions * span).long().clamp(max=span - 1)
