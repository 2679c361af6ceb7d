"""What runs of a study right now: which trials, since when, how far, on which machine."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trainables import incarnations
from tune_lora import view, wording
from tune_lora.store import StudyRecord, TrialRecord

MOST = 20
"""Trials that are shown; of more, how many there are."""


def status(record: StudyRecord, total: int, folder: Path, now: dt.datetime | None = None) -> RenderableType:
    """Counts, the best so far, what runs, and why the study stopped where it has. `now` is a local time without a zone,
    as Optuna keeps them."""
    parts: list[RenderableType] = [view.panel(record, total)]
    running = [trial for trial in record.trials if trial.state == "running"]
    if record.stop_reason:
        parts.append(Text(f"stopped: {record.stop_reason}"))
    if running:
        is_mirrored = bool(record.spec.get("resources", {}).get("mirror"))
        now = now or dt.datetime.now()  # noqa: DTZ005  # as Optuna's
        parts += [Text(""), _table(running[:MOST], folder, now, is_mirrored)]
    if len(running) > MOST:
        parts.append(Text(f"and {len(running) - MOST} more", style="dim"))
    return Group(*parts)


def _table(running: list[TrialRecord], folder: Path, now: dt.datetime, is_mirrored: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("running", "for", "reached", "on"):
        table.add_column(name)
    for trial in running:
        since = wording.duration((now - trial.started).total_seconds()) if trial.started else ""
        reached, machine = _place(trial, folder, is_mirrored)
        beside = f", in a pack of {trial.pack}" if trial.pack > 1 else ""
        table.add_row(f"trial {trial.number}", since, reached, machine + beside)
    return table


def _place(trial: TrialRecord, folder: Path, is_mirrored: bool) -> tuple[str, str]:
    """How far a trial is and where it runs: by its folder, which a mirrored one has on its node; there, and where the
    folder is not to be seen, by what the study was told."""
    where = None if is_mirrored else incarnations.standing(folder / "trials" / str(trial.number))
    reached = max(trial.last_budget, where.budget if where else 0)
    if where is not None:
        return str(reached), where.host
    if trial.history:
        return str(reached), "its node"
    return "", "has not reported yet" if is_mirrored else "waits for a worker"
