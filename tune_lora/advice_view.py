"""Advice as a table in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tune_lora import wording
from tune_lora.advise import Advice

WIDE = 120
"""Columns of a terminal from which sentences stand beside each other."""
_STYLES = {"bad": "bold red", "risky": "yellow", "could be better": "cyan", "good": "green"}


def table(found: Sequence[Advice], width: int = WIDE) -> RenderableType:
    """A row a piece of advice, what is worst and matters most first; what a study says stands below why.

    In a terminal narrower than `WIDE` why and what to try stand below their row.
    """
    if not found:
        return Text("no rule applies: nothing is known that is good or bad about this configuration")
    rows = _wide(found) if width >= WIDE else _narrow(found)
    sources = dict.fromkeys(source.strip() for one in found for source in one.source.split(";"))
    return Group(rows, Text(f"sources: {'; '.join(sources)}", style="dim"))


def _wide(found: Sequence[Advice]) -> RenderableType:
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("setting", "value", "status", "why", "what to try", "priority", "risk"):
        shown.add_column(name, justify="right" if name == "priority" else "left", no_wrap=name in ("setting", "status"))
    for one in found:
        why = Text(one.why)
        if one.measured:
            why.append(f"\n{one.measured}", "dim")
        setting, value, status, priority, risk = _cells(one)
        shown.add_row(setting, value, status, why, Text(one.what_to_try or "–"), priority, risk)
    return shown


def _narrow(found: Sequence[Advice]) -> RenderableType:
    parts: list[RenderableType] = []
    for one in found:
        setting, value, status, priority, risk = _cells(one)
        head = Text.assemble(setting, " ", value, ": ", status)
        if priority.plain:
            head.append(f" (priority {priority}; risk: {risk})", "dim")
        said = Text(f"why: {one.why}")
        said.append(f"\nwhat to try: {one.what_to_try}" if one.what_to_try else "")
        said.append(f"\n{one.measured}" if one.measured else "", "dim")
        parts += [head, Padding(said, (0, 0, 0, 2))]
    return Group(*parts)


def _cells(one: Advice) -> tuple[Text, Text, Text, Text, Text]:
    """Setting, value, status, priority (of what is good none) and risk."""
    value = wording.setting(one.setting, {one.setting: one.value})
    priority = "" if one.status == "good" else str(one.priority)
    return Text(one.setting), Text(value), Text(one.status, _STYLES[one.status]), Text(priority), Text(one.risk)
