"""Advice as a table in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tune_lora import wording
from tune_lora.advise import Advice

_STYLES = {"bad": "bold red", "risky": "yellow", "could be better": "cyan", "good": "green"}


def table(found: Sequence[Advice]) -> RenderableType:
    """A row a piece of advice, what is worst and matters most first; what a study says stands below its row."""
    if not found:
        return Text("no rule applies: nothing is known that is good or bad about this configuration")
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("setting", "value", "status", "why", "what to try", "priority", "risk"):
        shown.add_column(name, justify="right" if name == "priority" else "left")
    for one in found:
        why = Text(one.why)
        if one.measured:
            why.append(f"\n{one.measured}", "dim")
        value = wording.setting(one.setting, {one.setting: one.value})
        priority = "" if one.status == "good" else str(one.priority)
        shown.add_row(
            Text(one.setting), Text(value), Text(one.status, _STYLES[one.status]), why, Text(one.what_to_try or "–"),
            Text(priority), Text(one.risk),
        )  # fmt: skip
    sources = dict.fromkeys(source.strip() for one in found for source in one.source.split(";"))
    return Group(shown, Text(f"sources: {'; '.join(sources)}", style="dim"))
