"""One configuration outside a search: train it to its end, draw with a LoRA. Needs no Ray session."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables.protocol import Report, TrialContext, TrialFailure
from tune_lora import build, sources
from tune_lora.errors import InputError, InputErrors, StudyError
from tune_lora.sources import STUDY_FILE
from tune_lora.spec import StudySpec

KOHYA_NAME = "lora.safetensors"


def train(
    study: Path | None,
    *,
    config: Path | None = None,
    epochs: int | None = None,
    output: Path | None = None,
    seed: int | None = None,
    watch: Callable[[Report, int], None] | None = None,
) -> Path:
    """Trains one configuration to its end; returns the folder that holds it (its LoRA files in ``lora/``).

    The configuration is that of `config`, else the best of the study. Images, base and evaluation are the study's: a
    results folder, a study.db or a study file; without one, the study.yaml beside `config`. `watch` is shown each
    report and the number of the last.

    Raises:
        InputError: something named does not exist or does not fit; nothing has been started.
        StudyError: the training failed, with its cause.
    """
    spec, params, place, best_seed = _what_to_train(study, config)
    if epochs is not None:
        params = {**params, "max_train_epochs": epochs}
    trainer = build.trainer_of(spec)
    if mistakes := trainer.check(params):
        raise InputErrors(f"{config or place}: {mistake}" for mistake in mistakes)
    folder = _empty(output or place / "trained")
    context = TrialContext(
        params, folder, seed=best_seed if seed is None else seed, threads=len(os.sched_getaffinity(0))
    )
    try:
        for report in trainer.run(context):
            if watch is not None:
                watch(report, trainer.horizon(params))
    except TrialFailure as failure:
        raise StudyError(f"training ended with {failure.cause.value}: {failure.message}") from None
    return folder


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
) -> Path:
    """Draws `n` images with a LoRA and writes them as one PNG; returns `output`.

    `source` is a results folder (its best LoRA), a folder that `train` made, or a LoRA file. `base` and `prompts` are
    the study's unless given.

    Raises:
        InputError: there is no LoRA, or it does not fit the base.
    """
    file, chosen_base, known_prompts = _what_to_draw(source, base)
    texts = list(prompts or known_prompts)
    if not texts:
        raise InputError(f"{source}: no prompts are known; give some with --prompt")

    from trainables.lora import base as bases
    from trainables.lora import generation, lora_files

    pipeline = bases.load(chosen_base).pipeline
    lora_files.load_lora(pipeline, file)
    shown = (texts * math.ceil(n / len(texts)))[:n]
    images = generation.generate(pipeline, shown, range(seed, seed + n), steps=steps, guidance=guidance)
    output.parent.mkdir(parents=True, exist_ok=True)
    return generation.write_image_grid(output, images, shown, title=f"{file.parent.name}/{file.name}")


def _what_to_train(study: Path | None, config: Path | None) -> tuple[StudySpec, Mapping[str, Any], Path, int]:
    """Study file, configuration, where results belong, and the seed."""
    if study is None:
        if config is None:
            raise InputError("nothing to train: give a results folder or a study file, or --config best_config.yaml")
        study = config.parent / STUDY_FILE
        if not study.is_file():
            raise InputError(f"{config}: no {STUDY_FILE} beside it; name the study whose images it is to be trained on")
    if config is not None:
        params = sources.configuration(config)
        spec = sources.study_file_of(study)
        return spec, params, config.parent, spec.search.seed
    spec, record, folder = sources.finished_study(study)
    if record.best is None:
        raise InputError(f"{folder}: no trial has completed, so there is no best configuration; give one with --config")
    return spec, record.best.config, folder, record.best.seed


def _empty(folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is kept; remove it, or name another folder with --output")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _what_to_draw(source: Path, base: str | None) -> tuple[Path, str, Sequence[str]]:
    """LoRA file, base and known prompts."""
    if source.is_file() and source.suffix == ".safetensors":
        return source, base or "tiny-sd", ()
    if (file := source / "lora" / KOHYA_NAME).is_file():
        return file, base or "tiny-sd", ()
    spec, record, folder = sources.finished_study(source)
    file = folder / "best" / KOHYA_NAME
    if not file.is_file():
        raise InputError(f"{file} does not exist; must be there once a trial has completed")
    return file, base or spec.base, record.calibration.get("prompts") or spec.evaluation.prompts
