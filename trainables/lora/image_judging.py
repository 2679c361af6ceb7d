"""Image adapters judged together: held-out losses, pictures and what they measure, each as if alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from trainables.evaluation import Evaluation
from trainables.lora.conditioning import Conditioning
from trainables.lora.generation import IMAGES_AT_ONCE, Drawers
from trainables.lora.ground import Panel
from trainables.lora.packed_layers import Share
from trainables.protocol import TrialFailure

if TYPE_CHECKING:
    from trainables.lora.image_task import ImageTask

CAPTIONS_AT_ONCE = 64
"""Held-out captions in one pass through text encoders that several adapters train."""
MOST_ON_A_CPU = 32
"""Images in one pass: on tiny-sd 64 rows cost 3.8 ms each, 16 cost 4.1 and 96 cost 4.6."""
Looked = tuple[dict[str, float], dict[str, Path]]


def validated(tasks: Sequence[ImageTask], panel: Panel) -> list[dict[str, float]]:
    """Held-out loss of each task; all share a session."""
    session, told = tasks[0].session, _told(tasks, panel)

    def tell(rows: int) -> None:
        panel.routing.tell([session.base.unet], [Share(task.slot, rows) for task in tasks])

    found = session.validation_losses([told[task.slot] for task in tasks], tell)
    panel.charge({task.slot: 1 for task in tasks})
    return [{"val_loss": loss} for loss in found]


def _told(tasks: Sequence[ImageTask], panel: Panel) -> dict[int, Conditioning]:
    """Texts of the held-out images, by slot: of those that train text encoders each its own, of all others the same."""
    session = tasks[0].session
    trained = [task for task in tasks if task.trains_text]
    frozen = [task for task in tasks if not task.trains_text]
    told: dict[int, Conditioning] = {}
    if frozen:
        texts = session.held_out_texts()
        told |= {task.slot: texts for task in frozen}
        panel.charge({task.slot: 1 for task in frozen})
    count = len(session.data.held_out)
    for some in _cut(trained, max(1, CAPTIONS_AT_ONCE // count)):
        shares = [Share(task.slot, count) for task in some]
        panel.routing.tell(session.base.text_encoders.values(), shares)
        parts = session.held_out_texts(len(some)).split([count] * len(some))
        told |= {task.slot: part for task, part in zip(some, parts, strict=True)}
        panel.charge({share.slot: 1 for share in shares})
    return told


def looked(asked: Sequence[tuple[ImageTask, int]], panel: Panel) -> list[Looked | TrialFailure]:
    """What each task's pictures measure, and where they are; or that they are none. Those that are sampled otherwise
    are drawn in a batch of their own."""
    session = asked[0][0].session
    drawn: dict[int, np.ndarray] = {}
    for alike in _by_sampler([task for task, _ in asked]):
        drawn |= _drawn(alike, panel)
    images = [drawn[task.slot] for task, _ in asked]
    evaluations = session.evaluator.evaluate_each(images, session.prompts)
    panel.charge({task.slot: 1 for task, _ in asked})
    found: list[Looked | TrialFailure] = []
    for (task, budget), pictures, evaluation in zip(asked, images, evaluations, strict=True):
        found.append(_shown(task, budget, pictures, evaluation))
        panel.charge({task.slot: 1})
    return found


def _by_sampler(tasks: Sequence[ImageTask]) -> Iterator[list[ImageTask]]:
    for is_own in (True, False):
        if alike := [task for task in tasks if (task.sampler is None) is is_own]:
            yield alike


def _drawn(tasks: Sequence[ImageTask], panel: Panel) -> dict[int, np.ndarray]:
    """Images (N, H, W, 3) by slot, of tasks with one sampler."""
    session = tasks[0].session
    count = len(session.prompts)
    drawers = Drawers([task.slot for task in tasks for _ in range(count)], panel.routing, panel.charge)
    images = session.drawn(
        tasks[0].sampler, times=len(tasks), drawers=drawers, at_once=images_at_once(panel.rows, session.base.device)
    )
    return dict(zip((task.slot for task in tasks), np.split(images, len(tasks)), strict=True))


def images_at_once(rows: int, device: torch.device) -> int:
    """How many images are drawn in one pass, by how many a step trains on: as many take less memory than training
    them (with guidance 3.5 MiB each on tiny-sd, where training takes 6.2). A CPU is slower from a certain number on."""
    most = MOST_ON_A_CPU if device.type == "cpu" else rows
    return max(IMAGES_AT_ONCE, min(rows, most))


def _shown(task: ImageTask, budget: int, images: np.ndarray, evaluation: Evaluation) -> Looked | TrialFailure:
    try:
        return task.shown(budget, images, evaluation)
    except TrialFailure as failure:
        return failure


def _cut(tasks: Sequence[ImageTask], size: int) -> Iterable[Sequence[ImageTask]]:
    return [tasks[start : start + size] for start in range(0, len(tasks), size)]
