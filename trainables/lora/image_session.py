"""What outlives an image trial on a worker: base, dataset, latents, networks of the evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import SchedulerMixin

from trainables.evaluation import Evaluation, Evaluator
from trainables.lora import base as bases
from trainables.lora import cache
from trainables.lora import dataset as datasets
from trainables.lora.base import Base
from trainables.lora.cache import KnownTexts, Latents
from trainables.lora.conditioning import Conditioning
from trainables.lora.diffusion_loss import validation_losses
from trainables.lora.generation import IMAGES_AT_ONCE, Drawers, generate, write_image_grid
from trainables.lora.precision import DTYPES, autocast
from trainables.lora.shared import forget
from trainables.protocol import TrialContext

if TYPE_CHECKING:
    from trainables.diffusion_lora import DiffusionLora, ImageEvaluation

REFERENCES = 256
"""Images that targets are calibrated on and likeness is measured with, at most: all are held in memory."""


class ImageSession:
    """Everything that the trials of one study share on one worker."""

    def __init__(self, trainer: DiffusionLora, data: datasets.Dataset, precision: str) -> None:
        self.trainer, self.data, self.precision = trainer, data, precision
        self.base: Base = bases.load(trainer.base, dtype=DTYPES[precision], prediction_type=trainer.prediction_type)
        self.latents: Latents = cache.latents(self.base, data.train)
        self.held_out: Latents = cache.latents(self.base, data.held_out, mirrored=False)
        self._known_texts: KnownTexts | None = None
        self.prompts = _prompts(trainer.evaluation, data)

    @cached_property
    def evaluator(self) -> Evaluator:
        """Networks and references of the evaluation; a process that only helps to train never loads them."""
        chosen = self.trainer.evaluation
        shown, held_out = _some(self.data.train), _some(self.data.held_out)
        return Evaluator.load(
            references=self._pictures(shown),
            reference_captions=[image.caption for image in shown],
            identity_references=self._pictures(held_out),
            targets=chosen.targets,
            weights=chosen.weights,
            clip_path=Path(chosen.clip) if chosen.clip else None,
            lpips_path=Path(chosen.lpips) if chosen.lpips else None,
            preference=chosen.preference,
            device=self.base.device,
        )

    def _pictures(self, images: Sequence[datasets.CaptionedImage]) -> np.ndarray:
        """Images (N, H, W, 3) at the dataset's resolution, whatever bucket they are trained in."""
        return np.stack([datasets.pixels(image.path, self.data.settings.resolution) for image in images])

    def validation_loss(self) -> float:
        """Held-out loss of the base with whatever adapter is attached."""
        (loss,) = self.validation_losses([self.held_out_texts()])
        return loss

    def held_out_texts(self, times: int = 1) -> Conditioning:
        """Conditioning of the held-out captions, so many times one behind the other, under the text encoders as they
        are."""
        with torch.no_grad(), self.autocast():
            return self.base.condition([image.caption for image in self.data.held_out] * times)

    def validation_losses(self, told: Sequence[Conditioning], tell: Callable[[int], object] = int) -> list[float]:
        """Held-out loss of each of several adapters, with its texts; of each pass `tell` is told the rows of each."""
        return validation_losses(self.base, self.held_out, told, tell=tell, autocast=self.autocast())

    def known_texts(self) -> KnownTexts:
        """Conditioning of the training captions that never vary, and of the empty one that dropout shows, under the
        base's text encoders."""
        if self._known_texts is None:
            captions = [image.caption for image in self.data.train if not image.caption_varies]
            self._known_texts = cache.known_texts(self.base, [*captions, ""])
        return self._known_texts

    def frozen_texts(self, batches: Sequence[Sequence[str]]) -> list[Conditioning]:
        """Text states of each batch of captions under the base's own encoders. Known captions come from the cache; ever
        new ones are computed, all at once, for keeping them would fill the memory."""
        known = self.known_texts()
        found = {
            place: known.of(captions, self.base.device)
            for place, captions in enumerate(batches)
            if known.knows(captions)
        }
        new = [place for place in range(len(batches)) if place not in found]
        if new:
            with torch.no_grad():
                states = self.base.condition([caption for place in new for caption in batches[place]])
            found |= dict(zip(new, states.split([len(batches[place]) for place in new]), strict=True))
        return [found[place] for place in range(len(batches))]

    def with_sizes(self, told: Conditioning, rows: Sequence[int], views: Sequence[int]) -> Conditioning:
        """What the denoiser is told of shown images: text, and their sizes."""
        return Conditioning(told.states, told.pooled, self.latents.time_ids(rows, views))

    def autocast(self) -> AbstractContextManager[object]:
        """Half precision where it was asked for."""
        return autocast(self.base.device, self.precision)

    @property
    def image_seeds(self) -> list[int]:
        """The seed of each image that an evaluation generates, fixed per study."""
        return [self.trainer.evaluation.seed + index for index in range(len(self.prompts))]

    def evaluate(self, scheduler: SchedulerMixin | None = None) -> tuple[np.ndarray, Evaluation]:
        """Images (N, H, W, 3) of the study's prompts and seeds at the dataset's resolution, and what they measure.
        `scheduler` samples them in place of the base's own."""
        images = self.drawn(scheduler)
        return images, self.evaluator.evaluate(images, self.prompts)

    def drawn(
        self,
        scheduler: SchedulerMixin | None = None,
        *,
        times: int = 1,
        drawers: Drawers | None = None,
        at_once: int = IMAGES_AT_ONCE,
    ) -> np.ndarray:
        """Images (times x N, H, W, 3) of the study's prompts and seeds, so many times one behind the other."""
        chosen = self.trainer.evaluation
        with self.autocast():
            return generate(
                self.base.pipeline, self.prompts * times, self.image_seeds * times, steps=chosen.steps,
                guidance=chosen.guidance, size=self.data.settings.resolution, scheduler=scheduler, drawers=drawers,
                batch_size=at_once,
            )  # fmt: skip

    def write_grid(self, path: Path, images: np.ndarray, evaluation: Evaluation, title: str) -> None:
        """The evaluated images side by side, failed ones marked."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image_grid(
            path, images, labels=list(self.prompts), failed=evaluation.failed, title=title, seeds=self.image_seeds
        )

    def write_references(self, path: Path) -> None:
        """Held-out images beside which the winner is shown."""
        shown = self.data.held_out[: self.trainer.evaluation.n_images]
        images = self._pictures(shown)
        write_image_grid(path, images, labels=[image.caption for image in shown], failed=None, title="held-out images")


def _some(images: Sequence[datasets.CaptionedImage]) -> Sequence[datasets.CaptionedImage]:
    """At most `REFERENCES` images, evenly out of their order, which is one of content."""
    return images[:: -(-len(images) // REFERENCES)]


def _prompts(evaluation: ImageEvaluation, data: datasets.Dataset) -> tuple[str, ...]:
    source = list(evaluation.prompts) or [image.caption for image in data.held_out]
    return tuple(source[index % len(source)] for index in range(evaluation.n_images))


def session_for(trainer: DiffusionLora, context: TrialContext) -> ImageSession:
    """The worker's session for this trainer; made at the first trial, and again only when the trainer's settings or the
    precision differ."""
    torch.set_num_threads(context.threads)
    precision = str(context.params.get("precision", trainer.precision))
    key = (repr(trainer), precision)
    held = context.shared.get("diffusion_lora")
    if held is None or held[0] != key:
        data = trainer.load_dataset()
        held = None
        forget(context.shared)
        context.shared["diffusion_lora"] = held = (key, ImageSession(trainer, data, precision))
    session: ImageSession = held[1]
    return session
