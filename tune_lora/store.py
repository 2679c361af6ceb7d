"""The Optuna study is the truth: how it is opened, what is written on its trials, and typed records read out of it.

Nothing here needs Ray. `optuna.load_study` and optuna-dashboard read the same database as it is.
"""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from trainables.protocol import Cause
from tune_lora.errors import InputError

# Names of the user attributes on each Optuna trial. One place, so that writer and readers agree.
CONFIG = "config"  # every resolved value: sampled, derived, fixed
PROVENANCE = "provenance"  # "sampler", "prior:<name>", "carried:<study>#<number>", "continued", "retry:<number>"
NOTES = "provenance_notes"  # what was assumed or changed when it was carried over
CAUSE = "cause"  # a Cause's value
MESSAGE = "message"  # what the cause is in words
SEED = "seed"
FINAL_METRICS = "metrics"  # the metrics of the last report
HISTORY_PREFIX = "report:"  # + budget: the metrics of that report; appended, never rewritten
IMAGES_PREFIX = "images:"  # + budget: {label: path relative to the study's folder}
TUNE_ID = "tune_trial_id"
SECONDS = "seconds"  # spent training, over all restarts
WARNINGS = "warnings"

# Names of the user attributes on the Optuna study.
SPEC = "spec"  # the resolved study file as a mapping
REJECTIONS = "rejected_draws"  # {constraint name: count}
STOP_REASON = "stop_reason"
BASELINE = "baseline"  # metrics of the untrained base
BASE_IMAGES = "base_images"  # {label: path relative to the study's folder}: the untrained base, held-out images
CALIBRATION = "calibration"  # {"calibrated": bool, "targets": {...}, "notes": [...]}
KNOWLEDGE = "knowledge"  # [{"source", "told", "shown", "references", "values", "left_out": {reason: count}}]
CARRIED_PREFIX = "knowledge:"  # + index: [{"source", "provenance", "params", "value", "notes"}]
LET_GO = "knowledge_let_go"  # {source: why it is no longer told}
VERIFICATION = "verification"  # {"trial": number, ...} once the best was evaluated again with other seeds and prompts
SCHEDULER_NOTE = "scheduler_note"  # the last thing the scheduler found out, in words: where grace moved to, and why

INTERRUPTED = "interrupted"
"""How the stop reason of a study begins that ctrl-C ended."""

Direction = Literal["minimize", "maximize"]
State = Literal["complete", "pruned", "failed", "running", "waiting"]
_STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class TrialRecord:
    """One trial as every reader sees it.

    `value` is the final score of a completed trial; None otherwise. `params` are the sampled values, `config` all
    resolved ones (derived and fixed included; equal to `params` plus what a prior set outside the space). `curve` maps
    budget to the score that the scheduler saw there; `history` maps budget to all metrics of that report. `images` maps
    budget to labelled paths relative to the study's folder. `seconds` is training time.
    """

    number: int
    state: State
    value: float | None
    params: Mapping[str, Any]
    config: Mapping[str, Any]
    provenance: str = "sampler"
    notes: tuple[str, ...] = ()
    cause: Cause | None = None
    message: str = ""
    seed: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: Mapping[int, float] = field(default_factory=dict)
    history: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    images: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    seconds: float = 0.0
    started: dt.datetime | None = None
    finished: dt.datetime | None = None

    @property
    def counts(self) -> bool:
        """Whether it counts towards the study's total: it ended, and not through the infrastructure."""
        return self.state in ("complete", "pruned", "failed") and self.cause is not Cause.INFRASTRUCTURE

    @property
    def last_budget(self) -> int:
        """Budget of the newest report; 0 before the first."""
        return max(self.history, default=0)


@dataclass(frozen=True)
class StudyRecord:
    """A study and all its trials, in order of their numbers."""

    name: str
    direction: Direction
    trials: tuple[TrialRecord, ...]
    spec: Mapping[str, Any] = field(default_factory=dict)
    rejections: Mapping[str, int] = field(default_factory=dict)
    stop_reason: str = ""
    baseline: Mapping[str, float] = field(default_factory=dict)
    base_images: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    verification: Mapping[str, Any] = field(default_factory=dict)
    knowledge: tuple[Mapping[str, Any], ...] = ()
    carried: tuple[Mapping[str, Any], ...] = ()
    let_go: Mapping[str, str] = field(default_factory=dict)

    def ranked(self) -> list[TrialRecord]:
        """Completed trials, best first; ties by number."""
        sign = 1 if self.direction == "minimize" else -1
        done = [trial for trial in self.trials if trial.state == "complete" and trial.value is not None]
        return sorted(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    @property
    def best(self) -> TrialRecord | None:
        """The completed trial with the best score."""
        return next(iter(self.ranked()), None)

    def count(self, state: State) -> int:
        """Number of trials in a state."""
        return sum(trial.state == state for trial in self.trials)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names that any trial sampled, in order of first appearance."""
        return tuple(dict.fromkeys(name for trial in self.trials for name in trial.params))

    def tried(self, trial: TrialRecord) -> dict[str, Any]:
        """What a trial trained with, under the sampled names only.

        A reference configuration may lie outside the space: such a value is in `config` but not in `params`, and still
        is what was tried. A conditional parameter that the trial does not have is absent.
        """
        known = {**trial.config, **trial.params}
        return {name: known[name] for name in self.parameter_names if name in known}

    @property
    def is_uncalibrated(self) -> bool:
        """Whether the study says that its scores do not compare with the user's numbers."""
        return self.calibration.get("calibrated") is False

    @property
    def is_verified(self) -> bool:
        """Whether the present best is the trial that was evaluated again with other seeds and prompts."""
        return self.best is not None and self.verification.get("trial") == self.best.number


def sqlite_url(folder: Path) -> str:
    """Storage URL of the study file in a results folder."""
    return f"sqlite:///{folder / 'study.db'}"


def open_study(storage: str, name: str, direction: Direction, *, create: bool = True) -> optuna.Study:
    """Opens (or creates) the Optuna study.

    Raises:
        InputError: the storage cannot be opened, or the study does not exist and `create` is False.
    """
    with _broken_storage_is_a_mistake(storage):
        if not create:
            names = optuna.get_all_study_names(storage)
            if name not in names:
                available = ", ".join(names) or "none"
                raise InputError(f"study {name!r} not found in {storage}; available: {available}")
        return optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)


def study_names(storage: str) -> list[str]:
    """Names of the studies in a storage. Raises InputError where it cannot be opened."""
    with _broken_storage_is_a_mistake(storage):
        return list(optuna.get_all_study_names(storage))


def without_password(storage: str) -> str:
    """A storage URL as it may be shown: a password is nobody's business."""
    return re.sub(r"//([^:/@]*):[^@/]*@", r"//\1:***@", storage)


@contextmanager
def _broken_storage_is_a_mistake(storage: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError, RuntimeError) as error:
        # SQLAlchemy's own text goes on with the statement and a link; what the database said is its cause.
        said = str(getattr(error, "orig", None) or error).strip().splitlines()
        raise InputError(
            f"storage {without_password(storage)}: cannot be opened ({said[0] if said else type(error).__name__})"
        ) from None


def load(folder: Path) -> StudyRecord:
    """The records of the study that a results folder holds; raises as `load_study` does."""
    return read(load_study(folder))


def load_study(folder: Path) -> optuna.Study:
    """The Optuna study that a results folder (or a study.db in it) holds.

    Raises:
        InputError: there is no study.db, it is no Optuna storage, or it holds no study or several.
    """
    if folder.is_file():
        folder = folder.parent
    if not (folder / "study.db").is_file():
        raise InputError(f"{folder}: no study.db here; give a results folder that `tune-lora run` made")
    _require_optuna_storage(folder / "study.db")
    storage = sqlite_url(folder)
    with _broken_storage_is_a_mistake(storage):
        names = optuna.get_all_study_names(storage)
        if len(names) != 1:
            held = f"{len(names)} studies ({', '.join(names) or 'none'})"
            raise InputError(f"{folder / 'study.db'}: holds {held}, must hold exactly one")
        return optuna.load_study(study_name=names[0], storage=storage)


def _require_optuna_storage(path: Path) -> None:
    # Looked at read-only first: opening a foreign file as an Optuna storage would write Optuna's tables into it.
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path}: not an Optuna study: {error}") from None
    if "studies" not in tables:
        raise InputError(f"{path}: not an Optuna study: it has no table 'studies'")


def read(study: optuna.Study) -> StudyRecord:
    """Typed records out of an open Optuna study."""
    attributes = study.user_attrs
    return StudyRecord(
        name=study.study_name,
        direction="minimize" if study.direction == optuna.study.StudyDirection.MINIMIZE else "maximize",
        trials=tuple(record(trial) for trial in study.get_trials(deepcopy=False)),
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
    )


def record(trial: FrozenTrial) -> TrialRecord:
    """One Optuna trial as a record."""
    attributes = trial.user_attrs
    cause = attributes.get(CAUSE)
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state],
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        params=dict(trial.params),
        config=attributes.get(CONFIG, dict(trial.params)),
        provenance=attributes.get(PROVENANCE, "sampler"),
        notes=tuple(attributes.get(NOTES, ())),
        cause=Cause(cause) if cause else None,
        message=attributes.get(MESSAGE, ""),
        seed=attributes.get(SEED, 0),
        metrics=attributes.get(FINAL_METRICS, {}),
        curve=dict(sorted(trial.intermediate_values.items())),
        history=_by_budget(attributes, HISTORY_PREFIX),
        images=_by_budget(attributes, IMAGES_PREFIX),
        seconds=attributes.get(SECONDS, 0.0),
        started=trial.datetime_start,
        finished=trial.datetime_complete,
    )


def _by_budget(attributes: Mapping[str, Any], prefix: str) -> dict[int, Any]:
    """Attributes that are numbered behind their prefix, in order."""
    found = {int(name.removeprefix(prefix)): value for name, value in attributes.items() if name.startswith(prefix)}
    return dict(sorted(found.items()))
