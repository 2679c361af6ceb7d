"""Runs a study, read top to bottom: check, open, settle, prepare, search, write down."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import optuna
from sqlalchemy.exc import SQLAlchemyError

from cluster import connect
from cluster.connect import options, session
from cluster.package import is_unpacked
from trainables import outages
from trainables.mirror import Mirror
from trainables.protocol import Preparing
from tune_lora import (
    baseline,
    drivers,
    exports,
    figures,
    incidents,
    locks,
    mirror_driver,
    mirroring,
    packing,
    placing,
    report,
    same_study,
    storage,
    store,
    termination,
    tracking,
)
from tune_lora.build import Plan, plan
from tune_lora.errors import InputError, StudyError
from tune_lora.placing import Slots
from tune_lora.spec import StudySpec
from tune_lora.store import StudyRecord

for _name, _value in {
    # The study's own store is the log; Ray's loggers would write each result three times more.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # the score is measured at rungs, not in every report
    "TUNE_WARN_THRESHOLD_S": "30",
    # Else Tune starts one worker at a time, and a trial that ends meanwhile gives its own to the one that waits: where
    # workers start slowly, half of the slots stay empty. How many run is for the searcher to say (`tune_lora.limited`).
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # of Ray's own state, which nobody reads and which grows with the study
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # a lost worker is a line of the study's, not a traceback
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}.items():
    os.environ.setdefault(_name, _value)


class View(Protocol):
    """Who watches a study run."""

    def update(self, record: StudyRecord, *, total: int, force: bool = False) -> None:
        """A look at the study as it is now; called often, may ignore most calls."""
        ...

    def note(self, line: str) -> None:
        """One line worth saying once."""
        ...


class NoView:
    """Nobody watches."""

    def update(self, record: StudyRecord, *, total: int, force: bool = False) -> None:
        """Does nothing."""

    def note(self, line: str) -> None:
        """Does nothing."""


def run(spec: StudySpec, *, n_trials: str | int | None = None, view: View | None = None) -> StudyRecord:
    """Runs (or continues) a study to its end and leaves its tables, figures, report and winner in its folder.

    `n_trials` overrides the study's total; ``"+50"`` is that many more than it has.

    Raises:
        InputError: something in the study or its folder is not as it must be; nothing has been started.
        StudyError: trials crash one after another.
    """
    view = view or NoView()
    ready = plan(spec)
    _check_storage_is_reachable(spec)
    mirroring.check(spec)
    with _full_disk_is_one_line(spec.folder), _driven(spec, view) as study:
        total = total_trials(n_trials, store.read(study), spec.budget.n_trials)
        ready = _of_total(ready, total)
        same_study.settle(study, ready)
        exports.write_study_file(ready.spec.as_mapping(), spec.folder)
        with session(spec.resources.address) as capacity, termination.exits(), placing.marked(spec) as mark:
            placed = placing.place(spec, capacity, view, mark)
            _prepare(study, ready, placed, view)
            placed = placing.packed(placed, ready, study, view)
            placed = placing.shared(placed, spec.resources, packing.chosen(ready, study, connect.capacity(), view))
            with _tracked(study, spec, view) as tracker:
                _search(study, ready, placed, total, tracker, view)
        return _write_down(study, ready, total, view)


def total_trials(asked: str | int | None, record: StudyRecord, default: int) -> int:
    """How many trials the study has in all when it is done.

    Raises:
        InputError: `asked` is neither a number nor ``+`` and a number.
    """
    if asked is None:
        return default
    text = str(asked).strip()
    if not re.fullmatch(r"\+?[0-9]+", text) or int(text) < 1:
        raise InputError(f"--n-trials: got {asked!r}; must be a total such as 50, or +50 for that many more")
    return counted_trials(record) + int(text) if text.startswith("+") else int(text)


def counted_trials(record: StudyRecord) -> int:
    """Trials that count towards the total: all that ended, but for those the infrastructure ended."""
    return sum(trial.counts for trial in record.trials)


def _of_total(ready: Plan, total: int) -> Plan:
    """With what was asked for as the study's own number: `status` counts up to it, and `resume` goes on to it."""
    budget = ready.spec.budget.model_copy(update={"n_trials": total})
    return replace(ready, spec=ready.spec.model_copy(update={"budget": budget}))


def _check_storage_is_reachable(spec: StudySpec) -> None:
    if is_unpacked(spec.folder):
        raise InputError(
            f"results: got {spec.results!r}, which would be lost with the job; must be an absolute path that all nodes "
            "see"
        )
    try:
        spec.folder.mkdir(parents=True, exist_ok=True)
        (spec.folder / "logs").mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"results: cannot write to {spec.folder}: {error.strerror}") from None


@contextmanager
def _full_disk_is_one_line(folder: Path) -> Generator[None, None, None]:
    """Whatever a full disk or a lost share breaks first, it is said in one line. The store is whole: it writes all of a
    change or nothing."""
    from ray.exceptions import RayError
    from ray.tune import TuneError

    try:
        yield
    except (OSError, TuneError, RayError, SQLAlchemyError, optuna.exceptions.StorageInternalError, StudyError) as error:
        said = outages.of_storage(error) or outages.of_folder(folder)
        if said is None:
            raise
        raise StudyError(
            f"{folder}: {said}; the study stops here and nothing of it is lost: make room, then give the same command"
        ) from error


@contextmanager
def _driven(spec: StudySpec, view: View) -> Generator[optuna.Study, None, None]:
    """The open study, with this process as its driver, or as one of them where it is stored in a database server."""
    with locks.driving(spec.storage_url, spec.folder, spec.name), mirror_driver.fenced(spec, view.note) as fence:
        mirroring.restore(spec, view.note)
        study = _open(spec)
        with (
            storage.listening(study, _Aloud(study, view)),
            drivers.joined(study) as driver,
            mirroring.kept(study, spec, view.note, fence),
        ):
            if driver is not None and driver.others:
                view.note(f"{len(driver.others)} more at work on this study: {', '.join(driver.others)}")
            yield study


class _Aloud:
    """Says that the storage is waited for, and keeps with the study that it was."""

    def __init__(self, study: optuna.Study, view: View) -> None:
        self._study, self._view = study, view

    def away(self, line: str) -> None:
        """Says it; there is nowhere to write it."""
        self._view.note(line)

    def back(self, line: str) -> None:
        """Says it and keeps it."""
        self._view.note(line)
        incidents.note(self._study, line)


def _open(spec: StudySpec) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    score, several = spec.objective.pruned_on, spec.objective.several
    patience = 60 * spec.budget.storage_patience_minutes
    study = store.open_study(spec.storage_url, spec.name, score.direction, objectives=several, patience=patience)
    if several:
        study.set_user_attr(store.PRUNED_ON, score.name)
    return study


# --- before the first trial ------------------------------------------------------------------------------------------


def _prepare(study: optuna.Study, ready: Plan, placed: Slots, view: View) -> None:
    """Judges the untrained base and calibrates the targets, once per study."""
    if store.BASELINE in study.user_attrs or not isinstance(ready.trainer, Preparing):
        return
    view.note("preparing: data, caches, and what the trials are compared with")
    folder = ready.spec.folder / "base"
    folder.mkdir(parents=True, exist_ok=True)
    found = _on_a_worker(ready, placed, folder.absolute(), mirroring.of(study, ready.spec))
    mirroring.fetch_base(ready.spec, folder, view.note)
    study.set_user_attr(store.CALIBRATION, found["calibration"])
    for note in found["calibration"].get("data", ()):
        view.note(str(note))
    images = {label: os.path.relpath(path, ready.spec.folder) for label, path in found["images"].items()}
    study.set_user_attr(store.BASE_IMAGES, images)
    study.set_user_attr(store.BASELINE, found["baseline"])


def _on_a_worker(ready: Plan, placed: Slots, folder: Path, mirror: Mirror | None) -> dict[str, Any]:
    import ray

    from trainables.protocol import TrialContext
    from tune_lora.errors import TuneLoraError

    # What every trial has in common, such as the precision: the base is judged as they are.
    context = TrialContext(params=ready.space.resolve({}), folder=folder, threads=placed.threads)
    # The worker's memory goes back when it is done; trials have workers of their own.
    task = ray.remote(max_calls=1, **options(placed.trial))(_prepare_remotely)
    try:
        result: dict[str, Any] = ray.get(task.remote(ready.trainer, context, mirror))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, TuneLoraError):
            raise error.cause from None
        raise StudyError(f"the base model could not be judged: {str(error).strip().splitlines()[-1]}") from error
    return result


def _prepare_remotely(trainer: Any, context: Any, mirror: Mirror | None) -> dict[str, Any]:
    if mirror is not None:
        return mirror.prepared(trainer, context)
    found: dict[str, Any] = trainer.prepare(context)
    return found


# --- the search ------------------------------------------------------------------------------------------------------


def _search(study: optuna.Study, ready: Plan, placed: Slots, total: int, tracker: tracking.Tracker, view: View) -> None:
    from tune_lora.tuning import tune_study

    tune_study(study, ready, placed, total, tracker=tracker, view=view)
    if (reason := study.user_attrs.get(store.STOP_REASON, "")).startswith(("crash", "infrastructure")):
        _write_down(study, ready, total, view)
        raise StudyError(f"study {ready.spec.name!r} stopped: {reason}")


@contextmanager
def _tracked(study: optuna.Study, spec: StudySpec, view: View) -> Generator[tracking.Tracker, None, None]:
    tracker = tracking.start(spec.tracking.wandb, lambda: _place(study, spec))
    try:
        yield tracker
    finally:
        if tracker.record is not None:
            mirroring.fetch(spec, tracker.record, view.note)  # the winner's files are handed on
        for line in tracker.close():
            view.note(line)
            if line.endswith(tracking.WHOLE):
                incidents.note(study, line)


def _place(study: optuna.Study, spec: StudySpec) -> tracking.Place:
    token = drivers.agreed(study, store.TRACKING, secrets.token_hex(8))
    return tracking.Place(
        spec.tracking.project, spec.name, token, spec.folder,
        fetch=mirroring.picture_fetcher(spec),
        catches_up=drivers.of(study) is None,  # else a trial that ended is of a driver that tracks it
    )  # fmt: skip


# --- afterwards ------------------------------------------------------------------------------------------------------


def _write_down(study: optuna.Study, ready: Plan, total: int, view: View) -> StudyRecord:
    """Tables, figures, the winner's files and the report. Reads the study once."""
    record = store.read(study)
    if gains := baseline.stored(record):
        study.set_user_attr(store.IMPROVEMENT, gains)
    view.update(record, total=total, force=True)
    mirroring.fetch(ready.spec, record, view.note)
    with locks.turn(ready.spec.folder / "logs" / "results.lock"):  # drivers may share the folder
        write_results(record, study, ready.spec.folder, ready.spec.as_mapping())
    return record


def write_results(record: StudyRecord, study: optuna.Study, folder: Path, spec: Mapping[str, Any]) -> None:
    """All files of a results folder that are made from the study."""
    exports.write_all(study, folder, spec)
    copy_winner(record, folder)
    figures.draw_all(record, study, folder / "figures")
    figures.comparison(record, folder)
    report.write(record, folder)


def copy_winner(record: StudyRecord, folder: Path) -> Path | None:
    """Copies the best trial's LoRA files to ``best/``; returns that folder, or None where no trial has any."""
    best = record.winner
    source = folder / "trials" / str(best.number) / "lora" if best else None
    if source is None or not source.is_dir():
        return None
    scratch, target = folder / "best.part", folder / "best"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(source, scratch)
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)
    return target
