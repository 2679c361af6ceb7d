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
        parts += [Text(""), _table(running[:MOST], folder, now or dt.datetime.now())]  # noqa: DTZ005  # as Optuna's
    if len(running) > MOST:
        parts.append(Text(f"and {len(running) - MOST} more", style="dim"))
    return Group(*parts)


def _table(running: list[TrialRecord], folder: Path, now: dt.datetime) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("running", "for", "reached", "on"):
        table.add_column(name)
    for trial in running:
        where = incarnations.standing(folder / "trials" / str(trial.number))
        since = wording.duration((now - trial.started).total_seconds()) if trial.started else ""
        reached, machine = (str(where.budget), where.host) if where else ("", "waits for a worker")
        table.add_row(f"trial {trial.number}", since, reached, machine)
    return table
