"""A finished image LoRA judged again: new prompts and new noise, with the study's own measures and targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainables.lora import unseen_prompts
from trainables.lora.generation import generate, sampler_of, write_image_grid
from trainables.lora.image_session import ImageSession, session_for
from trainables.lora.lora_files import adapter_of_file
from trainables.lora.lora_tensors import read_lora
from trainables.protocol import Cause, TrialContext, TrialFailure

if TYPE_CHECKING:
    from trainables.diffusion_lora import DiffusionLora, ImageEvaluation

LORA = Path("lora") / "lora.safetensors"
"""Where a trial leaves it, in its folder."""
_APART = 1000
"""Noise seeds between two seeds: no two evaluations share an image's noise."""


def rejudged(trainer: DiffusionLora, made: Path | None, context: TrialContext) -> dict[str, float]:
    """What images of the LoRA in the trial folder `made` measure, as many as the study judges a trial by; of the base
    alone where that is None.

    The context's seed chooses the prompts and the noise, the same for whatever is judged; the images are kept in its
    folder.

    Raises:
        InputError: the LoRA cannot be read, or does not fit the base.
        TrialFailure: most images failed.
    """
    session = session_for(trainer, context)
    prompts = _prompts(session, context.seed)
    images = _images(session, made, prompts, context.seed, trainer.evaluation)
    found = session.evaluator.evaluate(images, prompts)
    picture = context.folder / f"{context.seed}.png"
    write_image_grid(
        picture, images, labels=list(prompts), failed=found.failed, title=f"judged again, seed {context.seed}"
    )
    if found.mostly_failed:
        raise TrialFailure(Cause.BLACK_IMAGES, f"{sum(found.failed)} of {len(images)} images failed", found.metrics)
    return dict(found.metrics)


def _images(
    session: ImageSession, made: Path | None, prompts: Sequence[str], seed: int, chosen: ImageEvaluation
) -> np.ndarray:
    """One image a prompt, with noise of its own, as `generate` returns them."""
    noise = range(seed * _APART, seed * _APART + len(prompts))
    file = None if made is None else read_lora(made / LORA)
    adapter = None if file is None else adapter_of_file(file, session.base.models)
    try:
        with session.autocast():
            return generate(
                session.base.pipeline, prompts, noise, steps=chosen.steps, guidance=chosen.guidance,
                size=session.data.settings.resolution,
                scheduler=None if file is None else sampler_of(file, session.base),
            )  # fmt: skip
    finally:
        if adapter is not None:
            adapter.detach()


def _prompts(session: ImageSession, seed: int) -> tuple[str, ...]:
    captions = [image.caption for image in (*session.data.train, *session.data.held_out)]
    return unseen_prompts.chosen(unseen_prompts.unseen(captions, session.prompts), len(session.prompts), seed)
