"""What a batch, a loss and a picture are to the LoRA engine when it trains images."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainables.lora import activations
from trainables.lora.adapters import Adapter, LoraShape, Part, require_layers
from trainables.lora.batches import batches_per_epoch, epoch_batches
from trainables.lora.collective import collective_of
from trainables.lora.diffusion_loss import denoising_loss, draw_noise, training_schedule
from trainables.lora.engine import LoraEngine
from trainables.lora.export import export_lora
from trainables.lora.generation import zero_terminal_sampler
from trainables.lora.image_session import ImageSession
from trainables.lora.kohya_layout import training_header
from trainables.lora.optimization import Optimization
from trainables.lora.settings import EngineSettings, ranks_by_prefix
from trainables.lora.targets import CLIP_TEXT, UNET
from trainables.protocol import Cause, Params, TrialContext, TrialFailure

if TYPE_CHECKING:
    from trainables.diffusion_lora import DiffusionLora


@dataclass(frozen=True)
class ImageBatch:
    """Rows of the dataset with the view (1: mirrored) and the caption of each. `mine` are the places of those that this
    process trains on; `seed` is that of the noise."""

    rows: Sequence[int]
    views: Sequence[int]
    captions: Sequence[str]
    mine: slice
    seed: int

    @property
    def size(self) -> int:
        """Images in the micro-batch."""
        return len(self.rows)

    @property
    def local(self) -> int:
        """Images that this process trains on."""
        return len(self.rows[self.mine])


class ImageTask:
    """One image LoRA on a worker's session; `close` takes it off the shared base again."""

    def __init__(self, trainer: DiffusionLora, session: ImageSession, context: TrialContext) -> None:
        self.trainer, self.session, self.context, self.params = trainer, session, context, context.params
        self.batch_size = int(self.params.get("train_batch_size", session.data.settings.batch_size))
        self.settings = EngineSettings.from_params(self.params)
        self.group = collective_of(context.group)
        to_pure_noise = bool(self.params.get("zero_terminal_snr", False))
        self.schedule = training_schedule(session.base, zero_terminal_snr=to_pure_noise)
        # The base's own sampler never begins where this training ends, and could not show it.
        self.sampler = zero_terminal_sampler(session.base.noise_schedule) if to_pure_noise else None
        self.adapter = adapter_of(session, self.params).attach(context.seed)
        try:
            total = self._steps_per_epoch() * trainer.horizon(self.params)
            lane = Optimization(self.adapter, self.settings, total, precision=session.precision, collective=self.group)
            self.engine = LoraEngine([lane])
            if self.params.get("gradient_checkpointing", False):
                for part in self.adapter.parts:
                    activations.recompute(part.model)
        except BaseException:  # whatever went wrong, the shared base must be left clean
            self.close()
            raise

    def _steps_per_epoch(self) -> int:
        """The last, smaller batch and the last, incomplete accumulation both count."""
        batches = batches_per_epoch(self.session.data, self.batch_size)
        return -(-batches // self.settings.gradient_accumulation_steps)

    @property
    def trains_text(self) -> bool:
        """Whether a text encoder has an adapter."""
        return len(self.adapter.parts) > 1

    def steps(self, unit: int) -> Sequence[Sequence[ImageBatch]]:
        """An epoch in its own order, repeats counted."""
        rng = random.Random(f"{self.context.seed}:{unit}:order")
        batches = [self._batch(rows, rng) for rows in epoch_batches(self.session.data, self.batch_size, rng)]
        accumulation = int(self.settings.gradient_accumulation_steps)
        return [batches[start : start + accumulation] for start in range(0, len(batches), accumulation)]

    def _batch(self, rows: Sequence[int], rng: random.Random) -> ImageBatch:
        images = [self.session.data.train[row] for row in rows]
        views = [rng.randrange(image.views) for image in images]
        captions = [image.shown_caption(rng) for image in images]
        mine = slice(self.group.rank, None, self.group.size)
        return ImageBatch(rows, views, captions, mine, seed=rng.randrange(2**62))

    def loss(self, batch: ImageBatch) -> torch.Tensor:
        """Mean error of the denoiser over this process's part of the batch. Noise is drawn for all of it, so that an
        image meets the same noise however many processes train."""
        session, base, mine = self.session, self.session.base, batch.mine
        drawn = torch.Generator().manual_seed(batch.seed)  # on the CPU: every device draws the same
        clean = session.latents.sample(batch.rows, batch.views, drawn)
        noise = draw_noise(clean.shape, drawn, float(self.params.get("noise_offset", 0.0)))
        timesteps = torch.randint(self.schedule.config.num_train_timesteps, (len(batch.rows),), generator=drawn)
        gamma = float(self.params.get("min_snr_gamma", 0.0))
        clean, noise, timesteps = (tensor[mine].to(base.device) for tensor in (clean, noise, timesteps))
        with session.autocast():
            told = session.conditioning(
                batch.rows[mine], batch.views[mine], batch.captions[mine], trains_text=self.trains_text
            )
            return denoising_loss(base, clean, noise, timesteps, told, schedule=self.schedule, min_snr_gamma=gamma)

    def validate(self) -> dict[str, float]:
        """Held-out loss."""
        return {"val_loss": self.session.validation_loss()}

    def look(self, budget: int) -> tuple[dict[str, float], dict[str, Path]]:
        """Generates, measures, stores the grid; ends the trial when most images failed."""
        images, evaluation = self.session.evaluate(self.sampler)
        path = self.context.folder / "images" / f"epoch_{budget:03d}.png"
        title = f"trial {self.context.folder.name}, epoch {budget}"
        self.session.write_grid(path, images, evaluation, title)
        if evaluation.mostly_failed:
            count = sum(evaluation.failed)
            raise TrialFailure(
                Cause.BLACK_IMAGES, f"{count} of {len(images)} images failed at epoch {budget}", evaluation.metrics
            )
        return dict(evaluation.metrics), {f"epoch {budget}": path}

    def export(self, metrics: Mapping[str, float]) -> None:
        """Writes the LoRA in both layouts, with where it comes from."""
        name = self.trainer.base if "/" not in self.trainer.base else Path(self.trainer.base).name
        data = self.session.data
        training = training_header(
            self.params, steps=self.engine.lanes[0].total_steps, seed=self.context.seed,
            precision=self.session.precision, resolution=data.settings.resolution, images=len(data.train), base=name,
            velocity=self.session.base.prediction_type == "v_prediction",
        )  # fmt: skip
        provenance = {
            "tune_lora_params": json.dumps(dict(self.params), sort_keys=True, default=str),
            "tune_lora_metrics": json.dumps(dict(metrics), sort_keys=True),
            "tune_lora_trial": self.context.folder.name,
            "tune_lora_seed": str(self.context.seed),
            "tune_lora_base": name,
            "tune_lora_base_sha256": self.session.base.identity,
            "tune_lora_dataset": data.name,
        }
        export_lora(self.context.folder / "lora", self.adapter, metadata=provenance, training=training)

    def close(self) -> None:
        """Takes the adapter off the shared base, and leaves it in evaluation mode however the trial ended."""
        for part in self.adapter.parts:
            activations.keep(part.model)
            part.model.eval()
        self.adapter.detach()


def adapter_of(session: ImageSession, params: Params) -> Adapter:
    """The adapter that a configuration describes: of the UNet, and of the text encoders where they have a rate."""
    shape = shape_of(params)
    require_layers(shape.ranks, session.base.models.values())
    which = str(params.get("network_targets", "all"))
    base = session.base
    parts = [Part("unet", base.unet, float(params["learning_rate"]), shape, UNET[which])]
    if (rate := float(params.get("text_encoder_lr", 0.0))) > 0:
        parts += [Part(name, model, rate, shape, CLIP_TEXT[which]) for name, model in base.text_encoders.items()]
    return Adapter(parts, loraplus_ratio=float(params.get("loraplus_lr_ratio", 1.0)))


def shape_of(params: Params) -> LoraShape:
    """Size and kind of an image LoRA; alpha of the convolutions keeps the proportion unless it is given."""
    rank, alpha = int(params["network_dim"]), float(params["network_alpha"])
    conv_rank = int(params.get("conv_dim", 0))
    return LoraShape(
        rank=rank,
        alpha=alpha,
        dropout=float(params.get("network_dropout", 0.0)),
        conv_rank=conv_rank,
        conv_alpha=float(params.get("conv_alpha", 0.0)) or alpha * conv_rank / rank,
        dora=bool(params.get("use_dora", False)),
        rslora=bool(params.get("use_rslora", False)),
        ranks=ranks_by_prefix(params, "network_dim"),
    )
