"""What outlives an image trial on a worker: base, dataset, latents, networks of the evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trainables.evaluation import Evaluation, Evaluator
from trainables.lora import base as bases
from trainables.lora import cache
from trainables.lora import dataset as datasets
from trainables.lora.base import Base
from trainables.lora.cache import Latents
from trainables.lora.diffusion_loss import validation_loss
from trainables.lora.generation import generate, write_image_grid
from trainables.protocol import TrialContext

if TYPE_CHECKING:
    from trainables.diffusion_lora import DiffusionLora, ImageEvaluation


class ImageSession:
    """Everything that the trials of one study share on one worker."""

    def __init__(self, trainer: DiffusionLora, data: datasets.Dataset) -> None:
        self.trainer, self.data = trainer, data
        self.base: Base = bases.load(trainer.base)
        settings = data.settings
        self.latents: Latents = cache.latents(self.base, data.train, settings.resolution, flip=settings.flip)
        held_out = cache.latents(self.base, data.held_out, settings.resolution)
        self.held_out_latents: torch.Tensor = held_out.mean[:, 0]
        self.held_out_ids = self.base.tokens([image.caption for image in data.held_out])
        self._text_states: Mapping[str, torch.Tensor] | None = None
        self.prompts = _prompts(trainer.evaluation, data)
        self.evaluator: Evaluator = self._evaluator()

    def _evaluator(self) -> Evaluator:
        size = self.data.settings.resolution
        chosen = self.trainer.evaluation
        return Evaluator.load(
            references=np.stack([datasets.pixels(image.path, size) for image in self.data.train]),
            reference_captions=[image.caption for image in self.data.train],
            identity_references=np.stack([datasets.pixels(image.path, size) for image in self.data.held_out]),
            targets=chosen.targets,
            weights=chosen.weights,
            clip_path=Path(chosen.clip) if chosen.clip else None,
            lpips_path=Path(chosen.lpips) if chosen.lpips else None,
            device=self.base.device,
        )

    def validation_loss(self) -> float:
        """Held-out loss of the base with whatever adapter is attached."""
        with self.autocast():
            return validation_loss(self.base, self.held_out_latents, self.held_out_ids)

    def text_states(self) -> Mapping[str, torch.Tensor]:
        """States of every training caption, and of the empty one that dropout shows, under the base's text encoder."""
        if self._text_states is None:
            captions = [image.caption for image in self.data.train]
            self._text_states = cache.text_states(self.base, [*captions, ""])
        return self._text_states

    def autocast(self) -> Any:
        """bf16 where it was asked for."""
        if self.trainer.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.base.device.type, torch.bfloat16)

    def evaluate(self) -> tuple[np.ndarray, Evaluation]:
        """Images (N, H, W, 3) of the study's prompts and seeds, and what they measure."""
        chosen = self.trainer.evaluation
        seeds = [chosen.seed + index for index in range(len(self.prompts))]
        with self.autocast():
            images = generate(
                self.base.pipeline, self.prompts, seeds, steps=chosen.steps, guidance=chosen.guidance,
                size=self.data.settings.resolution,
            )  # fmt: skip
        return images, self.evaluator.evaluate(images, self.prompts)

    def write_grid(self, path: Path, images: np.ndarray, evaluation: Evaluation, title: str) -> None:
        """The evaluated images side by side, failed ones marked."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image_grid(path, images, labels=list(self.prompts), failed=evaluation.failed, title=title)

    def write_references(self, path: Path) -> None:
        """Held-out images beside which the winner is shown."""
        shown = self.data.held_out[: self.trainer.evaluation.n_images]
        images = np.stack([datasets.pixels(image.path, self.data.settings.resolution) for image in shown])
        write_image_grid(path, images, labels=[image.caption for image in shown], failed=None, title="held-out images")


def _prompts(evaluation: ImageEvaluation, data: datasets.Dataset) -> tuple[str, ...]:
    source = list(evaluation.prompts) or [image.caption for image in data.held_out]
    return tuple(source[index % len(source)] for index in range(evaluation.n_images))


def session_for(trainer: DiffusionLora, context: TrialContext) -> ImageSession:
    """The worker's session for this trainer; made at the first trial, and again only when the trainer's settings
    differ."""
    torch.set_num_threads(context.threads)
    key = repr(trainer)
    held = context.shared.get("diffusion_lora")
    if held is None or held[0] != key:
        data = trainer.load_dataset()
        context.shared.clear()  # the old base goes before the new one comes
        context.shared["diffusion_lora"] = held = (key, ImageSession(trainer, data))
    session: ImageSession = held[1]
    return session
