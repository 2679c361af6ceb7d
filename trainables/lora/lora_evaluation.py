"""How good a LoRA file is, whoever made it: its images beside those of the untrained base, measured alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import SchedulerMixin

from trainables.evaluation import Evaluation, Evaluator
from trainables.lora import base as bases
from trainables.lora.buckets import Size
from trainables.lora.generation import generate, sampler_of
from trainables.lora.image_session import session_for
from trainables.lora.lora_files import adapter_of_file
from trainables.lora.lora_tensors import LoraFile, read_lora
from trainables.lora.sheet import Section, write_comparison
from trainables.protocol import TrialContext

if TYPE_CHECKING:
    from trainables.diffusion_lora import DiffusionLora, ImageEvaluation


@dataclass(frozen=True)
class LoraEvaluation:
    """What a LoRA and its untrained base measure on the same prompts and seeds.

    `facts` are the file's own; `bands` the lowest and highest good value by measure; `failures` says of each failed
    image of the LoRA which one it is and why; `notes` what a reader must know of the numbers.
    """

    facts: Mapping[str, Any]
    prompts: tuple[str, ...]
    metrics: Mapping[str, float]
    baseline: Mapping[str, float]
    bands: Mapping[str, tuple[float, float]]
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    sheet: Path = field(compare=False)

    def in_band(self, name: str) -> bool | None:
        """Whether the LoRA's measure is inside its band; None where it has no band, or was not measured."""
        if name not in self.bands or name not in self.metrics:
            return None
        low, high = self.bands[name]
        return low <= self.metrics[name] <= high

    def as_dict(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        measured = {
            name: {"value": value, "base": self.baseline.get(name), "band": self.bands.get(name)}
            | {"in_band": self.in_band(name)}
            for name, value in self.metrics.items()
        }
        return {
            "file": dict(self.facts),
            "measures": measured,
            "failures": list(self.failures),
            "prompts": list(self.prompts),
            "notes": list(self.notes),
            "sheet": str(self.sheet),
        }


def evaluate_with_dataset(path: Path, trainer: DiffusionLora, *, sheet: Path, threads: int = 1) -> LoraEvaluation:
    """Scores a LoRA as the trials of a study are: its dataset's references, prompts and validation loss.

    Raises:
        InputError: the file is not a LoRA, or not one of this base; the dataset or the base cannot be read.
    """
    file = read_lora(path)
    session = session_for(trainer, TrialContext({}, sheet.parent, threads=threads))

    def measured(scheduler: SchedulerMixin | None) -> tuple[np.ndarray, Evaluation]:
        images, evaluation = session.evaluate(scheduler)
        return images, replace(evaluation, metrics={"val_loss": session.validation_loss(), **evaluation.metrics})

    return _compared(file, session.base, session.evaluator, tuple(session.prompts), measured, sheet)


def evaluate_alone(
    path: Path, base: str, chosen: ImageEvaluation, *, sheet: Path, threads: int = 1, size: Size | None = None
) -> LoraEvaluation:
    """Scores a LoRA without a dataset: no likeness, no validation loss, and targets that are the user's numbers.

    Images have `size`, else the size that the file was trained at, where it says so, else the base's own.

    Raises:
        InputError: the file is not a LoRA, or not one of this base; the base cannot be read.
        ValueError: there is no prompt.
    """
    file = read_lora(path)
    torch.set_num_threads(threads)
    loaded = bases.load(base)
    evaluator = Evaluator.load(
        targets=chosen.targets,
        weights=chosen.weights,
        clip_path=Path(chosen.clip) if chosen.clip else None,
        lpips_path=Path(chosen.lpips) if chosen.lpips else None,
        device=loaded.device,
    )
    prompts = filled(chosen.prompts, chosen.n_images)

    def measured(scheduler: SchedulerMixin | None) -> tuple[np.ndarray, Evaluation]:
        images = generate(
            loaded.pipeline, prompts, range(chosen.seed, chosen.seed + len(prompts)), steps=chosen.steps,
            guidance=chosen.guidance, size=size or file.resolution, scheduler=scheduler,
        )  # fmt: skip
        return images, evaluator.evaluate(images, prompts)

    return _compared(file, loaded, evaluator, prompts, measured, sheet)


def filled(prompts: tuple[str, ...], count: int) -> tuple[str, ...]:
    """As many prompts as images, one after the other and again from the first."""
    return (prompts * math.ceil(count / max(1, len(prompts))))[:count]


def _compared(
    file: LoraFile,
    base: bases.Base,
    evaluator: Evaluator,
    prompts: tuple[str, ...],
    measured: Callable[[SchedulerMixin | None], tuple[np.ndarray, Evaluation]],
    sheet: Path,
) -> LoraEvaluation:
    adapter = adapter_of_file(file, base.models)  # first: a file that does not fit is refused before anything is drawn
    try:
        images, found = measured(sampler_of(file, base))
    finally:
        adapter.detach()
    plain_images, plain = measured(None)
    sections = [
        Section("untrained base", plain_images, prompts, plain.failed),
        Section(file.path.name, images, prompts, found.failed),
    ]
    said = evaluator.describe()
    return LoraEvaluation(
        facts=file.facts(),
        prompts=prompts,
        metrics=found.metrics,
        baseline=plain.metrics,
        bands={name: (low, high) for name, (low, high) in said["bands"].items()},
        failures=tuple(
            f"image {index} ({prompt}): {reason}"
            for index, (prompt, reason) in enumerate(zip(prompts, found.reasons, strict=True), start=1)
            if reason is not None
        ),
        notes=tuple(said["notes"]),
        sheet=write_comparison(sheet, sections),
    )
