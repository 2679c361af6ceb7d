"""The Optuna study is the truth: how it is opened, what is written on its trials, and typed records read out of it.

Nothing here needs Ray. `optuna.load_study` and optuna-dashboard read the same database as it is.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from trainables.protocol import Cause
from trainables.redaction import redacted
from tune_lora import incidents, storage_faults
from tune_lora.errors import InputError

# ruff: noqa: PLC0414 - whoever reads a study finds its records here as well
from tune_lora.records import CLOCK as CLOCK
from tune_lora.records import Direction as Direction
from tune_lora.records import Objective
from tune_lora.records import State as State
from tune_lora.records import StudyRecord as StudyRecord
from tune_lora.records import TrialRecord as TrialRecord
from tune_lora.storage import PATIENCE_SECONDS, connected
from tune_lora.storage_files import database_file
from tune_lora.storage_url import named_in, opened, opened_for, written

# Names of the user attributes on each Optuna trial. One place, so that writer and readers agree.
CONFIG = "config"  # every resolved value: sampled, derived, fixed
PROVENANCE = "provenance"  # "sampler", "prior:<name>", "carried:<study>#<number>", "continued", "retry:<number>"
NOTES = "provenance_notes"  # what was assumed or changed when it was carried over
CAUSE = "cause"  # a Cause's value
MESSAGE = "message"  # what the cause is in words
SEED = "seed"
FINAL_METRICS = "metrics"  # the metrics of the last report
HISTORY_PREFIX = "report:"  # + budget: the metrics of that report; appended, never rewritten
CURVE_PREFIX = "curve:"  # + budget: the score that schedulers saw there, where a study has several objectives
IMAGES_PREFIX = "images:"  # + budget: {label: path relative to the study's folder}
TUNE_ID = "tune_trial_id"
DRIVER = "driver"  # whose it is, where several drivers share the study (`tune_lora.drivers`)
SECONDS = "seconds"  # spent training, over all restarts
WARNINGS = "warnings"
PACK = "pack"  # how many seats the base had that it shared; absent where it trained alone

# Names of the user attributes on the Optuna study.
SPEC = "spec"  # the resolved study file as a mapping
DATA = "data_fingerprint"  # of what its trials learn from (`trainables.fingerprints`)
REJECTIONS = "rejected_draws"  # {constraint name: count}
STOP_REASON = "stop_reason"
BASELINE = "baseline"  # metrics of the untrained base
BASE_IMAGES = "base_images"  # {label: path relative to the study's folder}: the untrained base, held-out images
CALIBRATION = "calibration"  # {"calibrated": bool, "targets": {...}, "notes": [...]}
KNOWLEDGE = "knowledge"  # [{"source", "told", "shown", "references", "values", "left_out": {reason: count}}]
CARRIED_PREFIX = "knowledge:"  # + index: [{"source", "provenance", "params", "value", "notes"}]
LET_GO = "knowledge_let_go"  # {source: why it is no longer told}
VERIFICATION = "verification"  # {"trial": number, ...} once the best was evaluated again with other seeds and prompts
RATINGS_PREFIX = "ratings:"  # + rater: their judgements of pairs of trials (`tune_lora.ratings`)
PREFERENCE = "preference"  # {trial number: score} that the judgements come to, for readers of Optuna's
DRIVER_PREFIX = "driver:"  # + name: the lease of a driver that is at work (`tune_lora.leases`)
MIRROR = "mirror_token"  # tells it in its mirror from another study of its name
TRACKING = "tracking_token"  # tells its runs from those of another study of its name
TEAM_REPORT = "wandb_report"  # {"id", "url"} of its report at Weights & Biases (`tune_lora.team_report`)
RUNS = "mirror_runs"  # [[a driver that went on, trials that had ended]] (`tune_lora.mirror_copies`)
PRUNED_ON = "pruned_on"  # with several objectives: the one that schedulers look at
IMPROVEMENT = "improvement_percent"  # {trial number: percent better than the study's own baseline trial}
SAMPLER_NOTE = "sampler_note"  # what `sampler: auto` is for this study, and why
SCHEDULER_NOTE = "scheduler_note"  # the last thing the scheduler found out, in words: where grace moved to, and why
FOOTPRINTS = "footprints"  # {kind of machine: memory that a trial was measured to need there, in bytes}
PACKING_PREFIX = "packing:"  # + kind of machine and what a pack has of it: JSON of what was measured to pay there
PACKED = "packed"  # how many of its trials share a base now; 1: none do

INTERRUPTED = "interrupted"
"""How the stop reason of a study begins that ctrl-C ended."""

_STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def sqlite_url(folder: Path) -> str:
    """Storage URL of the study file in a results folder."""
    return f"sqlite:///{folder / 'study.db'}"


def open_study(
    storage: str,
    name: str,
    direction: Direction,
    *,
    objectives: Sequence[Objective] = (),
    create: bool = True,
    patience: float = PATIENCE_SECONDS,
) -> optuna.Study:
    """Opens (or creates) the Optuna study to write in it, with several `objectives` where they are given. Its storage
    is waited for up to `patience` seconds whenever it does not answer (`tune_lora.storage`).

    Raises:
        InputError: the storage cannot be opened, or the study does not exist and `create` is False.
    """
    shown, storage = written(storage), opened(storage)
    with _broken_storage_is_a_mistake(storage):
        backend = connected(storage, patience=patience, drives=True)
        if not create:
            names = optuna.get_all_study_names(backend)
            if name not in names:
                available = ", ".join(names) or "none"
                raise InputError(f"study {name!r} not found in {shown}; available: {available}")
        directions = [objective.direction for objective in objectives] or [direction]
        study = optuna.create_study(storage=backend, study_name=name, directions=directions, load_if_exists=True)
        if objectives and study.metric_names is None:
            with warnings.catch_warnings():  # that its interface may change is for this file to mind
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([objective.name for objective in objectives])
        return study


def study_names(storage: str) -> list[str]:
    """Names of the studies in a storage. Raises InputError where it cannot be opened."""
    storage = opened(storage)
    with _broken_storage_is_a_mistake(storage):
        return list(optuna.get_all_study_names(connected(storage)))


@contextmanager
def _broken_storage_is_a_mistake(storage: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError, RuntimeError, ValueError) as error:
        reason = redacted(storage_faults.reason(error))  # SQLAlchemy repeats a URL that it cannot parse
        raise InputError(f"storage {written(storage)}: cannot be opened ({reason})") from None


def load(folder: Path) -> StudyRecord:
    """The records of the study that a results folder holds; raises as `load_study` does."""
    return read(load_study(folder))


def load_study(folder: Path) -> optuna.Study:
    """The Optuna study that a results folder (or a study.db in it) holds, or that its study.yaml says is elsewhere.

    Raises:
        InputError: there is no study.db, it is no Optuna storage, or it holds no study or several; or the storage that
            study.yaml names cannot be opened, or does not hold the study.
    """
    if folder.is_file():
        folder = folder.parent
    if not (folder / "study.db").is_file():
        return _load_elsewhere(folder)
    _require_optuna_storage(folder / "study.db")
    storage = sqlite_url(folder)
    with _broken_storage_is_a_mistake(storage):
        backend = connected(storage)
        names = optuna.get_all_study_names(backend)
        if len(names) != 1:
            held = f"{len(names)} studies ({', '.join(names) or 'none'})"
            raise InputError(f"{folder / 'study.db'}: holds {held}, must hold exactly one")
        return optuna.load_study(study_name=names[0], storage=backend)


def _load_elsewhere(folder: Path) -> optuna.Study:
    """The study whose storage the folder's study.yaml names."""
    if (named := named_in(folder)) is None:
        raise InputError(f"{folder}: no study.db here; give a results folder that `tune-lora run` made")
    url, name = named
    with _broken_storage_is_a_mistake(url):
        storage = opened_for(folder, url)
        if (file := database_file(storage)) is not None:
            if not file.is_file():
                raise InputError(
                    f"{folder / 'study.yaml'}: its storage {written(url)} does not exist; must hold {name!r}"
                )
            _require_optuna_storage(file)
        backend = connected(storage)
        held = optuna.get_all_study_names(backend)
        if name not in held:
            available = ", ".join(held) or "none"
            raise InputError(f"study {name!r} not found in {written(url)}; available: {available}")
        return optuna.load_study(study_name=name, storage=backend)


def _require_optuna_storage(path: Path) -> None:
    # Looked at read-only first: opening a foreign file as an Optuna storage would write Optuna's tables into it.
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path}: not an Optuna study: {error}") from None
    if missing := [name for name in ("studies", "trials", "version_info") if name not in tables]:
        raise InputError(f"{path}: not an Optuna study: it has no table {missing[0]!r}")


def read(study: optuna.Study) -> StudyRecord:
    """Typed records out of an open Optuna study."""
    return record_of(study, map(record, study.get_trials(deepcopy=False)))


def record_of(
    study: optuna.Study, trials: Iterable[TrialRecord], objectives: tuple[Objective, ...] | None = None
) -> StudyRecord:
    """The record of a study whose trials are known; `objectives` are `objectives_of` the study, which never change."""
    attributes = study.user_attrs
    objectives = objectives_of(study) if objectives is None else objectives
    return StudyRecord(
        name=study.study_name,
        direction=_direction_of_curves(objectives, attributes.get(PRUNED_ON)),
        trials=tuple(trials),
        spec=attributes.get(SPEC, {}),
        rejections=attributes.get(REJECTIONS, {}),
        stop_reason=attributes.get(STOP_REASON, ""),
        baseline=attributes.get(BASELINE, {}),
        base_images=attributes.get(BASE_IMAGES, {}),
        calibration=attributes.get(CALIBRATION, {}),
        verification=attributes.get(VERIFICATION, {}),
        knowledge=tuple(attributes.get(KNOWLEDGE, ())),
        carried=tuple(point for chunk in _by_budget(attributes, CARRIED_PREFIX).values() for point in chunk),
        let_go=attributes.get(LET_GO, {}),
        objectives=objectives if len(objectives) > 1 else (),
        score_name="score" if len(objectives) > 1 else _metric(attributes.get(SPEC, {})),
        incidents=incidents.of(attributes),
        ratings=_ratings(attributes),
    )


def _ratings(attributes: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Everybody's judgements, in the order in which they were made."""
    found = [one for name, said in attributes.items() if name.startswith(RATINGS_PREFIX) for one in said]
    return tuple(sorted(found, key=lambda one: str(one.get("at", ""))))


def _metric(spec: Mapping[str, Any]) -> str:
    """What the values of a study with one objective are."""
    return str((spec.get("objective") or {}).get("metric") or "score")


def objectives_of(study: optuna.Study) -> tuple[Objective, ...]:
    """What the study is about, with names where it gave them."""
    names = study.metric_names or [f"objective {index}" for index, _ in enumerate(study.directions, start=1)]
    return tuple(
        Objective(name, "minimize" if direction == optuna.study.StudyDirection.MINIMIZE else "maximize")
        for name, direction in zip(names, study.directions, strict=True)
    )


def _direction_of_curves(objectives: Sequence[Objective], pruned_on: str | None) -> Direction:
    return next((one.direction for one in objectives if one.name == pruned_on), objectives[0].direction)


def record(trial: FrozenTrial) -> TrialRecord:
    """One Optuna trial as a record."""
    attributes = trial.user_attrs
    cause = attributes.get(CAUSE)
    values = tuple(trial.values or ()) if trial.state == TrialState.COMPLETE else ()
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state],
        value=values[0] if len(values) == 1 else None,
        params=dict(trial.params),
        config=attributes.get(CONFIG, dict(trial.params)),
        provenance=attributes.get(PROVENANCE, "sampler"),
        notes=tuple(attributes.get(NOTES, ())),
        cause=Cause(cause) if cause else None,
        message=attributes.get(MESSAGE, ""),
        seed=attributes.get(SEED, 0),
        metrics=attributes.get(FINAL_METRICS, {}),
        curve=dict(sorted(trial.intermediate_values.items())) or _by_budget(attributes, CURVE_PREFIX),
        history=_by_budget(attributes, HISTORY_PREFIX),
        images=_by_budget(attributes, IMAGES_PREFIX),
        seconds=attributes.get(SECONDS, 0.0),
        pack=attributes.get(PACK, 1),
        started=trial.datetime_start,
        finished=trial.datetime_complete,
        values=values,
    )


def _by_budget(attributes: Mapping[str, Any], prefix: str) -> dict[int, Any]:
    """Attributes that are numbered behind their prefix, in order."""
    found = {int(name.removeprefix(prefix)): value for name, value in attributes.items() if name.startswith(prefix)}
    return dict(sorted(found.items()))
