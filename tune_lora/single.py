"""One configuration outside a search, trained to its end. Needs no Ray session."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainables import checkpoints
from trainables.devices import gpu_count
from trainables.parallel import on_devices
from trainables.protocol import Report, Trainer, TrialContext, TrialFailure
from tune_lora import atomic, build, exports, overrides, sources, trainers
from tune_lora.errors import InputError, InputErrors, StudyError
from tune_lora.sources import STUDY_FILE
from tune_lora.spec import ResourcesSpec, StudySpec, differences

RECORD = "training.json"
"""What a folder is the training of, and once it has ended what was measured."""
MODELS = ("model.safetensors", "lora")
"""Where trainers leave their models."""
Watch = Callable[[Report, int, float], None]
"""Is shown each report, the budget of the last, and about how many seconds are left."""


def train(
    study: Path | None,
    *,
    config: Path | None = None,
    epochs: int | None = None,
    merged: bool = False,
    output: Path | None = None,
    seed: int | None = None,
    early_stopping: int | None = None,
    given: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> Path:
    """Trains one configuration to its end; returns the folder that holds it (its LoRA files in ``lora/``).

    The configuration is that of `config`, else the best of the study. Data, base and evaluation are the study's: a
    results folder, a study.db or a study file; without one, the study.yaml beside `config`. A folder in which the
    same training was interrupted goes on from its last checkpoint. Several processes train together where the study's
    resources say so. `merged` is for language models: the whole model
    with the LoRA in it is written as well, to ``merged/``. `given` are values in place of the configuration's and the
    study's (`tune_lora.overrides`); `early_stopping` is the trainer's patience in epochs.

    Raises:
        InputError: something named does not exist or does not fit; nothing has been started.
        StudyError: the training failed, with its cause.
    """
    spec, params, place, best_seed = _what_to_train(study, config)
    spec, params = overrides.in_configuration(spec, params, given or {})
    if early_stopping is not None:
        params = _with(spec, params, _patience(spec), early_stopping)
    if epochs is not None:
        params = _with(spec, params, trainers.epochs_of(spec), epochs)
    if merged and spec.trainer != "llm_lora":
        raise InputError(f"--merged: the trainer is {spec.trainer}; must be llm_lora to write a whole model")
    trainer = trainers.text_trainer(spec, merged=True) if merged else trainers.final_trainer_of(spec)
    if mistakes := trainer.check(params):
        raise InputErrors(f"{config or place}: {mistake}" for mistake in mistakes)
    folder, seed = output or place / "trained", best_seed if seed is None else seed
    _claim(folder, spec, params, seed)
    context = TrialContext(
        params, folder, seed=seed, restore=checkpoints.newest(folder), threads=len(os.sched_getaffinity(0))
    )
    try:
        last = _run(on_devices(trainer, processes(spec.resources, gpu_count())), context, watch)
    except TrialFailure as failure:
        where = checkpoints.note(folder)
        raise StudyError(f"training ended with {failure.cause.value}: {failure.message}{where}") from None
    _write_record(folder, params, seed, last.metrics)
    shutil.rmtree(folder / checkpoints.FOLDER, ignore_errors=True)
    return folder


def processes(resources: ResourcesSpec, gpus: int) -> int:
    """How many processes train together on a machine with so many GPUs: as the study says, but one a GPU at most; where
    it asks for GPUs and there are none, one."""
    return min(resources.together, gpus) if gpus else resources.processes or 1


def _with(spec: StudySpec, params: Mapping[str, Any], setting: str, value: int) -> dict[str, Any]:
    """A configuration with another value of a setting; what says the same in another way gives way, such as a number
    of steps to one of epochs."""
    twice = {other for one, other in trainers.kind_of(spec).said_twice if one == setting}
    return {**{name: known for name, known in params.items() if name not in twice}, setting: value}


def _patience(spec: StudySpec) -> str:
    """The setting that says how many epochs without a better value end a training."""
    setting = trainers.kind_of(spec).patience
    if setting is None:
        raise InputError(f"--early-stopping: the trainer {spec.trainer} does not stop early; must be left out")
    return setting


def outcome(folder: Path) -> str:
    """What came out of a training, in one line: what its study is about, as measured at the end, and the model."""
    objective = sources.study_file_of(folder / STUDY_FILE).objective
    metrics = (_record(folder) or {}).get("metrics", {})
    about = [one.name for one in objective.several] or [objective.metric]
    measured = [f"{name} {metrics[name]:.4g}" for name in about if name in metrics]
    models = [folder / name for name in MODELS if (folder / name).exists()]
    return f"trained: {', '.join(measured) or 'nothing measured'}" + (f"; model: {models[0]}" if models else "")


def _run(trainer: Trainer, context: TrialContext, watch: Watch | None) -> Report:
    """Trains from the context's checkpoint, writing one at each report; returns the last report."""
    horizon = trainer.horizon(context.params)
    begun = checkpoints.budget_of(context.restore) if context.restore else 0
    started, last = time.monotonic(), None
    for report in trainer.run(context):
        if report.save is not None and not report.final:
            checkpoints.write(context.folder, report.budget, report.save)
        if watch is not None:
            rate = (time.monotonic() - started) / (report.budget - begun)
            watch(report, horizon, rate * (horizon - report.budget))
        last = report
    if last is None:
        raise StudyError(f"the training of {context.folder} made no report")
    return last


def _claim(folder: Path, spec: StudySpec, params: Mapping[str, Any], seed: int) -> None:
    """Makes the folder this training's, or sees that it is already.

    Raises:
        InputError: it is kept: it holds something else, another training, or this one with its end.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        folder.mkdir(parents=True, exist_ok=True)
        exports.write_study_file(spec.as_mapping(), folder)
        _write_record(folder, params, seed)
        return
    advice = "remove it, or name another folder with --output"
    record = _record(folder)
    if record is None:
        raise InputError(f"{folder} exists and is kept; {advice}")
    changed = differences(sources.study_file_of(folder / STUDY_FILE).as_mapping(), spec.as_mapping())
    before, now = {**record["params"], "seed": record["seed"]}, {**_plain(params), "seed": seed}
    changed += [
        f"{name}: {before.get(name)!r} -> {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise InputError(f"{folder} holds another training ({changed[0]}); {advice}")
    if "metrics" in record:
        raise InputError(f"{folder} holds this training, and it has ended; {advice}")


def _record(folder: Path) -> dict[str, Any] | None:
    """What `_write_record` wrote; None where the folder is no training's."""
    try:
        found = json.loads((folder / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    is_ours = isinstance(found, dict) and isinstance(found.get("params"), dict) and "seed" in found
    return found if is_ours and isinstance(found.get("metrics", {}), dict) else None


def _write_record(
    folder: Path, params: Mapping[str, Any], seed: int, metrics: Mapping[str, float] | None = None
) -> None:
    record = {"params": _plain(params), "seed": seed} | ({} if metrics is None else {"metrics": dict(metrics)})
    atomic.write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it, so that what was written compares with what is asked."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(params), default=str))
    return plain


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
        if unknown := [*build.unknown_in(spec, params)]:
            raise InputErrors(f"{config}: {mistake}" for mistake in unknown)
        return spec, params, config.parent, spec.search.seed
    spec, record, folder = sources.finished_study(study)
    if (winner := record.winner) is None:
        raise InputError(f"{folder}: no trial has completed, so there is no best configuration; give one with --config")
    return spec, winner.config, folder, winner.seed
