"""What a terminal shows of an analysis: the findings, the success table, and the values tried of a hyperparameter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tune_lora import wording
from tune_lora.analysis import Distribution, Finding, SuccessTable, Tried
from tune_lora.records import StudyRecord

_MARKS = {"good": ("✓", "green"), "warning": ("!", "yellow"), "info": ("·", "dim")}
_HOLDS = {True: ("holds", "green"), False: ("does not", "yellow"), None: ("cannot be told", "dim")}


def findings(record: StudyRecord, found: Sequence[Finding], table: SuccessTable | None, place: str) -> RenderableType:
    """The findings with what to do, and the success table where the study has one; `place` is what the study is named
    by."""
    parts: list[RenderableType] = [Text(f"Study {record.name}: {wording.counts_line(record)}", style="bold"), Text("")]
    parts.append(_listed(found, place))
    if table is not None:
        parts += [Text(""), *_success(table)]
    return Group(*parts)


def tried(record: StudyRecord, name: str, rows: Iterable[Tried], n: int) -> RenderableType:
    """The first `n` values of one hyperparameter by how their trials did, the best first."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in (name, record.score_name, "trial"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for row in list(rows)[:n]:
        value = wording.setting(name, row.trial.config) if name in row.trial.config else _value(row.value)
        result = wording.result(record, row.trial)
        table.add_row(Text(value), Text(result), Text(str(row.trial.number)), Text(_end(row), style="dim"))
    return table


def _listed(found: Iterable[Finding], place: str) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for one in found:
        mark, style = _MARKS[one.kind]
        grid.add_row(Text(mark, style=style), Text(one.sentence))
        if one.advice:
            grid.add_row(Text(""), Text(f"→ {one.advice_for(place)}", style="dim"))
    return grid


def _success(table: SuccessTable) -> list[RenderableType]:
    shown = Table("criterion", "measured", "goal", "", "", box=None, pad_edge=False, header_style="dim")
    for one in table.criteria:
        word, style = _HOLDS[one.holds]
        shown.add_row(one.name, one.measured, one.goal, Text(word, style=style), Text(one.note, style="dim"))
    parts: list[RenderableType] = [Text(f"success: {table.summary}", style="bold"), shown]
    return [*parts, *(Text(distribution(one)) for one in table.distributions)]


def distribution(one: Distribution) -> str:
    """``alpha ratio (trials): up to 0.40: 6 (expected 6), ...``."""
    bins = (f"{part.label}: {part.count}{_expected(part.expected)}" for part in one.bins)
    return f"{one.name} (trials): {'; '.join(bins)}"


def _expected(count: float | None) -> str:
    return "" if count is None else f" (expected {wording.number(count)})"


def _end(row: Tried) -> str:
    if row.trial.state == "complete":
        return ""
    why = wording.cause(row.trial)
    at = f" at {row.trial.last_budget}" if row.trial.state == "pruned" else ""
    return row.trial.state + at + (f": {why}" if row.trial.state == "failed" and why else "")


def _value(value: Any) -> str:
    return wording.number(value) if isinstance(value, float) else str(value)
