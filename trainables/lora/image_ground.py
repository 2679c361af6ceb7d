"""What image trials stand on when they train together: a session, and how their batches are put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from trainables.lora import image_judging, image_task
from trainables.lora.course import Course
from trainables.lora.ground import Panel
from trainables.lora.grounds import alike, differing
from trainables.lora.image_judging import Looked
from trainables.lora.image_session import ImageSession, session_for
from trainables.lora.image_task import ImageBatch, ImageTask
from trainables.lora.meter import Charge
from trainables.lora.packed_layers import Routing
from trainables.lora.seats import Seats
from trainables.protocol import Params, TrialContext, TrialFailure

if TYPE_CHECKING:
    from trainables.diffusion_lora import DiffusionLora


class ImageGround:
    """One base, one set of images and one precision, those of the first trial's context."""

    def __init__(self, trainer: DiffusionLora, context: TrialContext) -> None:
        self._trainer = trainer
        self.session: ImageSession = session_for(trainer, context)
        self._precision = self.session.precision
        self._recomputes = bool(context.params.get("gradient_checkpointing", False))
        self.device = self.session.base.device

    def differences(self, params: Params) -> list[str]:
        """Why a configuration cannot share the base."""
        found = self._trainer.check(params)
        found += differing("precision", params.get("precision", self._trainer.precision), self._precision)
        return found + alike(
            params, self.session.base.models.values(), recomputes=self._recomputes, dropout="network_dropout"
        )

    def task(self, context: TrialContext, seats: Seats) -> ImageTask:
        """A trial's task, its adapter in its seats."""
        return ImageTask(self._trainer, self.session, context, seats)

    def course(self, params: Params) -> Course:
        """As the trainer has it."""
        return self._trainer.course(params)

    def likeness(self, params: Params) -> tuple[Any, ...]:
        """What decides whether updates are computed together: kind, rank, images of a micro-batch."""
        apart = bool(params.get("use_dora", False) or params.get("network_dropout", 0.0))
        texts = float(params.get("text_encoder_lr", 0.0)) > 0
        size = int(params.get("train_batch_size", self.session.data.settings.batch_size))
        return apart, texts, int(params["network_dim"]), int(params.get("conv_dim", 0)), size

    def weight(self, params: Params) -> float:
        """Images of a micro-batch."""
        return float(params.get("train_batch_size", self.session.data.settings.batch_size))

    def groups(self, asked: Sequence[tuple[ImageTask, ImageBatch]]) -> list[list[int]]:
        """Images of one size go together."""
        places: dict[object, list[int]] = {}
        for place, (_, batch) in enumerate(asked):
            places.setdefault(self.session.data.train[batch.rows[0]].target, []).append(place)
        return list(places.values())

    def losses(
        self, asked: Sequence[tuple[ImageTask, ImageBatch]], routing: Routing, charge: Charge
    ) -> list[torch.Tensor]:
        """The loss of each batch, in one pass through the denoiser."""
        return image_task.losses(asked, routing, charge)

    def validated(self, tasks: Sequence[ImageTask], panel: Panel) -> list[dict[str, float] | TrialFailure]:
        """Held-out losses."""
        return [*image_judging.validated(tasks, panel)]

    def looked(self, asked: Sequence[tuple[ImageTask, int]], panel: Panel) -> list[Looked | TrialFailure]:
        """Pictures, and what they measure."""
        return image_judging.looked(asked, panel)
