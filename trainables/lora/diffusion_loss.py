"""What a batch and a loss are in diffusion training: noise, timesteps, targets and their weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler

from trainables.lora.base import Base


def snr(schedule: DDPMScheduler, timesteps: torch.Tensor) -> torch.Tensor:
    """Signal-to-noise ratio at each timestep, shape of `timesteps`."""
    alphas = schedule.alphas_cumprod.to(timesteps.device)[timesteps]
    return alphas / (1 - alphas)


def min_snr_weight(schedule: DDPMScheduler, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Loss weights by Min-SNR (Hang et al. 2023): min(snr, gamma) over snr, or over snr + 1 for v-prediction."""
    ratio = snr(schedule, timesteps)
    divisor = ratio + 1 if schedule.config.prediction_type == "v_prediction" else ratio
    return ratio.clamp(max=gamma) / divisor


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
    states: torch.Tensor,
    *,
    min_snr_gamma: float = 0.0,
) -> torch.Tensor:
    """Mean squared error of the denoiser over a batch of latents (N, C, H, W), optionally Min-SNR weighted (gamma >
    0)."""
    clean, noise, timesteps = (tensor.to(base.device) for tensor in (clean, noise, timesteps))
    noisy = base.noise_schedule.add_noise(clean, noise, timesteps)
    predicted = base.unet(noisy, timesteps, states, return_dict=False)[0]
    wanted = target(base.noise_schedule, clean, noise, timesteps)
    error = F.mse_loss(predicted.float(), wanted, reduction="none").mean((1, 2, 3))
    if min_snr_gamma > 0:
        error = error * min_snr_weight(base.noise_schedule, timesteps, min_snr_gamma)
    return error.mean()


@torch.inference_mode()
def validation_loss(base: Base, clean: torch.Tensor, ids: torch.Tensor, *, draws: int = 4, batch: int = 32) -> float:
    """Unweighted error on held-out latents (N, C, H, W) with token ids (N, L), at noise and timesteps that never
    change.

    Each image is seen at `draws` timesteps, spread evenly and staggered between images.
    """
    generator = torch.Generator().manual_seed(20_000)
    count = len(clean)
    span = base.noise_schedule.config.num_train_timesteps
    rows = torch.arange(count).repeat_interleave(draws)
    positions = (torch.arange(draws).repeat(count) + (rows + 0.5) / count) / draws
    timesteps = (positions * span).long().clamp(max=span - 1)
    noise = torch.randn((count * draws, *clean.shape[1:]), generator=generator)
    states = base.text_states(ids)
    total = 0.0
    for start in range(0, len(rows), batch):
        part = slice(start, start + batch)
        loss = denoising_loss(base, clean[rows[part]], noise[part], timesteps[part], states[rows[part].to(base.device)])
        total += float(loss) * len(rows[part])
    return total / len(rows)
