"""A finished image LoRA, whoever made it: draw with it, say how good it is. Needs no Ray session."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.diffusion_lora import DiffusionLora, ImageEvaluation
from tune_lora import build, sources, trainers
from tune_lora.errors import InputError
from tune_lora.sources import DATABASE, STUDY_FILE
from tune_lora.spec import StudySpec

if TYPE_CHECKING:
    from trainables.lora.lora_evaluation import LoraEvaluation

KOHYA_NAME = "lora.safetensors"
TINY_SD = "tiny-sd"
SIDE_STEP, LARGEST_SIDE = 8, 2048


@dataclass(frozen=True)
class _Source:
    """A LoRA file, the study that it belongs to where there is one, and the prompts that study judged it by."""

    file: Path
    spec: StudySpec | None = None
    prompts: tuple[str, ...] = ()


def generate(
    source: Path,
    *,
    output: Path,
    base: str | None = None,
    prompts: Sequence[str] = (),
    n: int = 8,
    seed: int = 0,
    steps: int = 25,
    guidance: float = 4.0,
    size: str | None = None,
) -> Path:
    """Draws `n` images with a LoRA and writes them as one PNG; returns `output`.

    `source` is a results folder (its best LoRA), a folder that `train` made, or a LoRA file. `base` and `prompts` are
    the study's unless given. `size` is such as ``512`` or ``512x768`` (width and height); else it is what the LoRA was
    trained at, where the file or its study says so.

    Raises:
        InputError: there is no LoRA, or it does not fit the base.
    """
    found = _source(source)
    chosen_size = _size(size)
    texts = tuple(prompts) or _known_prompts(found)
    if not texts:
        raise InputError(f"{source}: no prompts are known; give some with --prompt")

    from trainables.lora import base as bases
    from trainables.lora import generation, lora_files
    from trainables.lora.lora_tensors import read_lora
    from trainables.lora.precision import DTYPES, autocast

    file, precision = read_lora(found.file), _precision(found.spec)
    if base is None and found.spec is not None:
        loaded = bases.load(found.spec.base, dtype=DTYPES[precision], prediction_type=found.spec.prediction_type)
    else:
        loaded = bases.load(base or TINY_SD, dtype=DTYPES[precision])
    lora_files.adapter_of_file(file, loaded.models)
    shown = (texts * math.ceil(n / len(texts)))[:n]
    with autocast(loaded.device, precision):
        images = generation.generate(
            loaded.pipeline, shown, range(seed, seed + n), steps=steps, guidance=guidance,
            size=chosen_size or file.resolution or _trained_at(found.spec),
            scheduler=generation.sampler_of(file, loaded),
        )  # fmt: skip
    title = f"{found.file.parent.name}/{found.file.name}"
    return generation.write_image_grid(output, images, shown, title=title)


def evaluate(
    source: Path,
    *,
    output: Path,
    study: Path | None = None,
    dataset: Path | None = None,
    base: str | None = None,
    prompts: Sequence[str] = (),
    n: int | None = None,
    seed: int | None = None,
    size: str | None = None,
) -> LoraEvaluation:
    """Scores a LoRA beside the untrained base and writes a sheet of both to `output`.

    `source` is what `generate` takes. References, prompts, seeds and base are those of `study`, or of `dataset`, or of
    the study that the LoRA came out of; without any, `prompts` must be given and likeness is not measured.

    Raises:
        InputError: something named does not exist or does not fit; nothing has been drawn.
    """
    if study is not None and dataset is not None:
        raise InputError("got --study and --dataset; must be one of them, since a study has its own dataset")
    found, chosen_size = _source(source), _size(size)
    spec = sources.study_file_of(study) if study is not None else (found.spec if dataset is None else None)
    trainer = _trainer(spec, dataset, base)
    evaluation = _asked(trainer.evaluation if trainer else ImageEvaluation(), prompts, n, seed)
    chosen_base = base or (trainer.base if trainer else TINY_SD)
    if trainer is None and not evaluation.prompts:
        raise InputError(f"{source}: no prompts are known; give some with --prompt, or --study, or --dataset")

    from trainables.lora import lora_evaluation

    threads = len(os.sched_getaffinity(0))
    if trainer is None:
        return lora_evaluation.evaluate_alone(
            found.file, chosen_base, evaluation, sheet=output, threads=threads, size=chosen_size
        )
    if chosen_size is not None:
        settings = {**trainer.dataset_settings, "resolution": chosen_size}
        trainer = replace(trainer, dataset_settings=settings)
    judge = replace(trainer, base=chosen_base, evaluation=evaluation, precision=_precision(spec or found.spec))
    return lora_evaluation.evaluate_with_dataset(found.file, judge, sheet=output, threads=threads)


def _source(source: Path) -> _Source:
    """The LoRA that a path stands for."""
    if source.is_file() and source.suffix == ".safetensors":
        return _Source(source)
    if (file := source / "lora" / KOHYA_NAME).is_file():
        study = source / STUDY_FILE
        return _Source(file, sources.study_file_of(study) if study.is_file() else None)
    if source.is_file() and source.name != DATABASE and source.suffix not in (".yaml", ".yml"):
        raise InputError(
            f"{source} is a {source.suffix or 'plain'} file; must be a .safetensors file, a folder that `train` made, "
            "or a results folder"
        )
    spec, record, folder = sources.finished_study(source)
    _images_only(spec, source)
    file = folder / "best" / KOHYA_NAME
    if not file.is_file():
        raise InputError(f"{file} does not exist; must be there once a trial has completed")
    return _Source(file, spec, tuple(record.calibration.get("prompts") or spec.evaluation.prompts))


def _precision(spec: StudySpec | None) -> str:
    """Of the base: the study's, where there is one."""
    return "fp32" if spec is None else str(build.common(spec)["precision"])


def _images_only(spec: StudySpec, source: Path) -> None:
    if spec.trainer != "diffusion_lora":
        raise InputError(f"{source}: is a study of the trainer {spec.trainer}; must be one of diffusion_lora (images)")


def _known_prompts(found: _Source) -> tuple[str, ...]:
    """The study's prompts; where it has none, the captions of the images that it held out."""
    if found.prompts or found.spec is None:
        return found.prompts
    return found.spec.evaluation.prompts or tuple(
        image.caption for image in trainers.image_trainer(found.spec).load_dataset().held_out
    )


def _trained_at(spec: StudySpec | None) -> tuple[int, int] | None:
    return None if spec is None else trainers.image_trainer(spec).load_dataset().settings.resolution


def _trainer(spec: StudySpec | None, dataset: Path | None, base: str | None) -> DiffusionLora | None:
    """The trainer that judges: the study's, or one of a dataset alone."""
    if spec is not None:
        _images_only(spec, Path(spec.name))
        return trainers.image_trainer(spec)
    return None if dataset is None else DiffusionLora(base or TINY_SD, str(dataset))


def _asked(evaluation: ImageEvaluation, prompts: Sequence[str], n: int | None, seed: int | None) -> ImageEvaluation:
    """How images are judged, with what was asked for in place of what is usual."""
    if prompts:
        evaluation = replace(evaluation, prompts=tuple(prompts))
    if n is not None:
        evaluation = replace(evaluation, n_images=n)
    return evaluation if seed is None else replace(evaluation, seed=seed)


def _size(text: str | None) -> tuple[int, int] | None:
    """Width and height of ``512`` or ``512x768``."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip())
    sides = (int(found[1]), int(found[2] or found[1])) if found else ()
    if not sides or any(side % SIDE_STEP or not SIDE_STEP <= side <= LARGEST_SIDE for side in sides):
        raise InputError(
            f"--size: got {text!r}; must be such as 512 or 512x768, multiples of {SIDE_STEP} up to {LARGEST_SIDE}"
        )
    return sides
