"""What a batch, a loss and a picture are to the LoRA engine when it trains images."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from trainables.evaluation import Evaluation
from trainables.lora import activations, image_judging
from trainables.lora.batches import batches_per_epoch, epoch_batches
from trainables.lora.collective import collective_of
from trainables.lora.conditioning import Conditioning
from trainables.lora.diffusion_loss import Question, answers, draw_noise, training_schedule
from trainables.lora.engine import LoraEngine
from trainables.lora.export import export_lora
from trainables.lora.generation import zero_terminal_sampler
from trainables.lora.ground import by_itself
from trainables.lora.image_adapter import adapter_of
from trainables.lora.image_session import ImageSession
from trainables.lora.kohya_layout import training_header
from trainables.lora.meter import Charge, for_nobody
from trainables.lora.optimization import Optimization
from trainables.lora.packed_layers import Routing, Share
from trainables.lora.seats import OwnSeats, Seats
from trainables.lora.settings import EngineSettings
from trainables.protocol import Cause, TrialContext, TrialFailure

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

    def __init__(
        self, trainer: DiffusionLora, session: ImageSession, context: TrialContext, seats: Seats | None = None
    ) -> None:
        self.trainer, self.session, self.context, self.params = trainer, session, context, context.params
        self.seats: Seats = seats or OwnSeats()
        self.batch_size = int(self.params.get("train_batch_size", session.data.settings.batch_size))
        self.settings = EngineSettings.from_params(self.params)
        self.group = collective_of(context.group)
        to_pure_noise = bool(self.params.get("zero_terminal_snr", False))
        self.schedule = training_schedule(session.base, zero_terminal_snr=to_pure_noise)
        # The base's own sampler never begins where this training ends, and could not show it.
        self.sampler = zero_terminal_sampler(session.base.noise_schedule) if to_pure_noise else None
        self.adapter = adapter_of(session, self.params, self.seats).attach(context.seed)
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
    def slot(self) -> int:
        """Its number among the trials that share the base."""
        return self.seats.slot

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

    def question(self, batch: ImageBatch) -> Question:
        """What the denoiser is asked about this process's part of the batch. Noise is drawn for all of it, so that an
        image meets the same noise however many processes train."""
        drawn = torch.Generator().manual_seed(batch.seed)  # on the CPU: every device draws the same
        clean = self.session.latents.sample(batch.rows, batch.views, drawn)
        noise = draw_noise(clean.shape, drawn, float(self.params.get("noise_offset", 0.0)))
        timesteps = torch.randint(self.schedule.config.num_train_timesteps, (len(batch.rows),), generator=drawn)
        mine, device = batch.mine, self.session.base.device
        clean, noise, timesteps = (tensor[mine].to(device) for tensor in (clean, noise, timesteps))
        return Question(clean, noise, timesteps, self.schedule, float(self.params.get("min_snr_gamma", 0.0)))

    def loss(self, batch: ImageBatch) -> torch.Tensor:
        """Mean error of the denoiser over this process's part of the batch."""
        (loss,) = losses([(self, batch)], Routing(), for_nobody)
        return loss

    def validate(self) -> dict[str, float]:
        """Held-out loss."""
        (measured,) = image_judging.validated([self], by_itself())
        return measured

    def look(self, budget: int) -> tuple[dict[str, float], dict[str, Path]]:
        """Generates, measures, stores the grid; ends the trial when most images failed."""
        (found,) = image_judging.looked([(self, budget)], by_itself())
        if isinstance(found, TrialFailure):
            raise found
        return found

    def shown(
        self, budget: int, images: np.ndarray, evaluation: Evaluation
    ) -> tuple[dict[str, float], dict[str, Path]]:
        """Stores the grid of its images (N, H, W, 3); returns what they measure, and where it is.

        Raises:
            TrialFailure: most images failed.
        """
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
        """Takes the adapter off the shared base, and leaves a model that nobody trains any more in evaluation mode
        however the trial ended."""
        self.adapter.detach()
        for part in self.adapter.parts:
            if self.seats.is_free(part.model):
                activations.keep(part.model)
                part.model.eval()


def losses(asked: Sequence[tuple[ImageTask, ImageBatch]], routing: Routing, charge: Charge) -> list[torch.Tensor]:
    """The loss of each task's batch, in one pass through the denoiser; all tasks share a session, and all latents are
    of one size, so that rows alone say what each costs."""
    session = asked[0][0].session
    rows = {task.slot: batch.local for task, batch in asked}
    questions = [task.question(batch) for task, batch in asked]
    with session.autocast():
        told = _told(session, asked, routing, charge)
        routing.tell([session.base.unet], [Share(task.slot, batch.local) for task, batch in asked])
        found = answers(session.base, questions, told)
        values = [question.loss(answer) for question, answer in zip(questions, found, strict=True)]
    charge(rows)
    return values


def _told(
    session: ImageSession, asked: Sequence[tuple[ImageTask, ImageBatch]], routing: Routing, charge: Charge
) -> list[Conditioning]:
    """What the denoiser is told of each batch: one pass through the text encoders for all that train them, one for
    captions that nobody knows yet, the cache for the rest. Where only some train them, the pass is charged to these."""
    shown = [(batch.rows[batch.mine], batch.views[batch.mine], batch.captions[batch.mine]) for _, batch in asked]
    trained = [place for place, (task, _) in enumerate(asked) if task.trains_text]
    frozen = [place for place in range(len(asked)) if place not in trained]
    found: dict[int, Conditioning] = {}
    if frozen:
        states = session.frozen_texts([shown[place][2] for place in frozen])
        found |= dict(zip(frozen, states, strict=True))
    if trained and frozen:
        charge({task.slot: batch.local for task, batch in asked})
    if trained:
        shares = [Share(asked[place][0].slot, asked[place][1].local) for place in trained]
        routing.tell(session.base.text_encoders.values(), shares)
        texts = session.base.condition([caption for place in trained for caption in shown[place][2]])
        found |= dict(zip(trained, texts.split([share.rows for share in shares]), strict=True))
        if frozen:
            charge({share.slot: share.rows for share in shares})
    return [session.with_sizes(found[place], rows, views) for place, (rows, views, _) in enumerate(shown)]
