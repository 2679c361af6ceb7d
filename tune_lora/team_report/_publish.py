"""From a results folder to its report at Weights & Biases: what must be there first, and what is kept afterwards."""

from __future__ import annotations

import datetime as dt
import importlib.util
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import optuna

from tune_lora import shell, sources, store, tracking
from tune_lora.errors import InputError
from tune_lora.records import StudyRecord
from tune_lora.spec import TrackingSpec
from tune_lora.storage import patient
from tune_lora.team_report._page import page
from tune_lora.team_report._place import There
from tune_lora.tracking_journal import Journal

if TYPE_CHECKING:
    from tune_lora.team_report._server import Server

PACKAGE = "wandb_workspaces"


@dataclass(frozen=True)
class Published:
    """A report that is at the server. `is_new` where it was made now; `missing` trials have ended and have no run."""

    url: str
    is_new: bool
    was_there_before: bool
    missing: int

    def lines(self) -> list[str]:
        """What is printed: the address last."""
        said = []
        if self.is_new and self.was_there_before:
            said.append("the earlier report is not on this server any more: this is a new one")
        if self.missing:
            said.append(f"{self.missing} of the trials that ended have no run there: panels lack them, tables do not")
        return [*said, f"{'made' if self.is_new else 'brought up to date'}: {self.url}"]


def publish(results: Path) -> Published:
    """Makes the W&B Report of a study, or brings it up to date where it was made before.

    Raises:
        InputError: wandb-workspaces is not installed, nobody is logged in, or runs of the study must be uploaded first.
        TuneLoraError: the server refuses or does not answer.
    """
    _ready()
    folder = sources.results_folder(results)
    study = store.load_study(folder)
    try:
        record, token = store.read(study), study.user_attrs.get(store.TRACKING)
        if token is None:
            raise InputError(_untracked(folder))
        return _publish(study, record, folder, str(token))
    finally:
        if (backend := patient(study)) is not None:
            backend.engine.dispose()


def _publish(study: optuna.Study, record: StudyRecord, folder: Path, token: str) -> Published:
    from tune_lora.team_report import _server

    kept: Mapping[str, Any] = study.user_attrs.get(store.TEAM_REPORT, {})
    with _server.opened() as server:
        there = _there(server, record, folder, token)
        made = page(record, there, str(folder), dt.datetime.now(dt.UTC))
        saved = server.save(made, there.entity, there.project, kept)
    if _server.told(saved) != kept:
        study.set_user_attr(store.TEAM_REPORT, dict(_server.told(saved)))
    missing = sum(one.counts and not there.has(one.number) for one in record.trials)
    return Published(saved.url, saved.is_new, bool(kept), missing)


def _ready() -> None:
    if importlib.util.find_spec(PACKAGE) is None:
        raise InputError("wandb-workspaces is not installed; must be: pip install 'tune-lora[wandb-report]'")
    if not tracking.is_logged_in():
        raise InputError("no login at Weights & Biases; must be: wandb login, or WANDB_API_KEY in the environment")


def _there(server: Server, record: StudyRecord, folder: Path, token: str) -> There:
    """Where the study's runs are.

    Raises:
        InputError: none is uploaded yet, or some are on disk only.
    """
    project = str((record.spec.get("tracking") or {}).get("project") or TrackingSpec().project)
    files = tracking.Place(project, record.name, token, folder).files
    entities = list(dict.fromkeys(filter(None, [*_entities(files), server.entity])))
    mine = {tracking.run_id(token, trial.number) for trial in record.trials}
    entity, found = "", frozenset[str]()
    for entity in entities:
        if mine & (found := server.runs(entity, project, record.name)):
            break
    if waiting := (mine & set(_on_disk(files))) - found:
        raise InputError(_offline(len(waiting), files))
    if not mine & found:
        raise InputError(_none(record, f"{entity}/{project}", folder))
    return There(server.site, entity, project, record.name, token, found)


def _entities(files: Path) -> Iterator[str]:
    """Whose the runs are that were uploaded as they grew, the newest first."""
    for url in reversed(Journal(files, "").places()):
        parts = urlsplit(url).path.strip("/").split("/")
        if len(parts) >= 4 and parts[-2] == "groups":
            yield unquote(parts[-4])


def _on_disk(files: Path) -> Iterator[str]:
    """Ids of runs that were written here and never uploaded from here."""
    for file in files.glob("offline-run-*/run-*.wandb"):
        if not file.with_name(f"{file.name}.synced").exists():
            yield file.stem.removeprefix("run-")


def _offline(count: int, files: Path) -> str:
    return (
        f"{'1 run is' if count == 1 else f'{count} runs are'} on disk only; must be uploaded first: "
        f"wandb sync {shlex.quote(str(files))}/offline-run-*"
    )


def _untracked(folder: Path) -> str:
    return f"{folder}: the study was not tracked, so it has no runs; {_track(folder)}"


def _none(record: StudyRecord, where: str, folder: Path) -> str:
    if not any(trial.counts for trial in record.trials):
        return f"{folder}: no trial has ended yet, and no run of it is at {where}; run the study first"
    return f"{folder}: no run of it is at {where} (WANDB_ENTITY names another user or team); {_track(folder)}"


def _track(folder: Path) -> str:
    again = shell.command("resume", folder, "--n-trials", "+1", "--set", "tracking.wandb=online")
    return f"they follow when it goes on: {again}"
