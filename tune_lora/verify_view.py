"""What a verification looks like in a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tune_lora.records import StudyRecord
from tune_lora.verification import Verdict, Verification
from tune_lora.verify_words import cells, heading, lines


def summary(record: StudyRecord, found: Verification, place: Path) -> RenderableType:
    """What is printed at the end: a table a verdict, and in words what it means. `place` is what the study was named
    by."""
    parts: list[RenderableType] = [Text(f"Study {record.name}: {found.metric}, {found.direction}d", style="bold")]
    for verdict in found.verdicts:
        parts += [Text(""), Text(heading(verdict), style="bold"), table(verdict, found.confidence)]
        parts += [Text(f"  trial {trial}: {why}", style="red") for trial, why in verdict.failed.items()]
    parts.append(Text(""))
    return Group(*parts, *(Text(line) for line in lines(found, str(place))))


def table(verdict: Verdict, confidence: float) -> RenderableType:
    """The candidates in the search's order, the recommended one bold."""
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("trial", "in the search", "now", f"{confidence:.0%} interval", "is the best"):
        shown.add_column(name, justify="right", no_wrap=True)
    for one in verdict.candidates:
        shown.add_row(str(one.trial), *cells(one), style="bold" if one.trial == verdict.trial else "")
    return shown
