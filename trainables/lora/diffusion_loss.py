"""What a batch and a loss are in diffusion training: noise, timesteps, targets and their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler

from trainables.lora.base import Base
from trainables.lora.cache import Latents
from trainables.lora.conditioning import Conditioning, stack
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


@dataclass(frozen=True)
class Question:
    """What a denoiser is asked about a batch of latents (N, C, H, W), and what a right answer is. All tensors are on
    the base's device."""

    clean: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    schedule: DDPMScheduler
    min_snr_gamma: float = 0.0

    def noisy(self) -> torch.Tensor:
        """The latents with their noise."""
        return self.schedule.add_noise(self.clean, self.noise, self.timesteps)

    def loss(self, predicted: torch.Tensor) -> torch.Tensor:
        """Mean squared error of an answer, optionally Min-SNR weighted (gamma > 0); fp32 at least, in whatever the
        denoiser computes."""
        wanted = target(self.schedule, self.clean, self.noise, self.timesteps)
        answer = predicted.to(torch.promote_types(predicted.dtype, torch.float32))
        error = F.mse_loss(answer, wanted.to(answer.dtype), reduction="none").mean((1, 2, 3))
        if self.min_snr_gamma > 0:
            error = error * min_snr_weight(self.schedule, self.timesteps, self.min_snr_gamma)
        return error.mean()


def answers(base: Base, questions: Sequence[Question], told: Sequence[Conditioning]) -> list[torch.Tensor]:
    """What the denoiser says to each question, all asked in one batch; latents are of one size."""
    noisy = joined([question.noisy() for question in questions]).to(base.unet.dtype)
    timesteps = joined([question.timesteps for question in questions])
    conditioning = stack(told) if len(told) > 1 else told[0]
    height, width = (side * base.pixels_per_latent for side in noisy.shape[-2:])
    predicted = base.unet(
        noisy,
        timesteps,
        conditioning.states.to(noisy.dtype),
        added_cond_kwargs=conditioning.added(height, width),
        return_dict=False,
    )[0]
    return list(predicted.split([len(question.clean) for question in questions]))


def joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """One batch of several; of one, the same without a copy."""
    return torch.cat(list(tensors)) if len(tensors) > 1 else tensors[0]


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
    """The loss of one `Question`, asked by itself."""
    question = Question(clean, noise, timesteps, schedule or base.noise_schedule, min_snr_gamma)
    (answer,) = answers(base, [question], [conditioning])
    return question.loss(answer)


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
    (loss,) = validation_losses(base, latents, [conditioning], draws=draws, batch=batch, autocast=autocast)
    return loss


@torch.inference_mode()
def validation_losses(
    base: Base,
    latents: Latents,
    conditionings: Sequence[Conditioning],
    *,
    tell: Callable[[int], object] = int,
    draws: int = 4,
    batch: int = 32,
    autocast: AbstractContextManager[object] | None = None,
) -> list[float]:
    """The `validation_loss` of several adapters, each with its conditioning, over the same latents, noise and
    timesteps. `tell` is told before each pass how many rows of it are of each adapter; `batch` are all of them."""
    generator = torch.Generator().manual_seed(20_000)
    each, totals = max(1, batch // len(conditionings)), torch.zeros(len(conditionings), dtype=torch.float64)
    with autocast or nullcontext():
        for rows, timesteps in _looks(latents, draws, base.noise_schedule.config.num_train_timesteps):
            noise = torch.randn((len(rows), *latents.mean(rows[:1]).shape[1:]), generator=generator)
            for start in range(0, len(rows), each):
                part = slice(start, start + each)
                seen = (latents.mean(rows[part]), noise[part], timesteps[part])
                clean, drawn, steps = (tensor.to(base.device) for tensor in seen)
                question = Question(clean, drawn, steps, base.noise_schedule)
                sizes, texts = latents.time_ids(rows[part]), [one.rows(rows[part]) for one in conditionings]
                told = [Conditioning(text.states, text.pooled, sizes) for text in texts]
                tell(len(rows[part]))
                found = [question.loss(answer) for answer in answers(base, [question] * len(told), told)]
                totals += torch.stack(found).double().cpu() * len(rows[part])
    return (totals / (len(latents.images) * draws)).tolist()


def _looks(latents: Latents, draws: int, span: int) -> Iterator[tuple[list[int], torch.Tensor]]:
    """For each bucket its rows, each as often as there are draws, and their timesteps."""
    count = len(latents.images)
    for group in latents.groups():
        rows = torch.tensor(group).repeat_interleave(draws)
        positions = (torch.arange(draws).repeat(len(group)) + (rows + 0.5) / count) / draws
        yield rows.tolist(), (positions * span).long().clamp(max=span - 1)
