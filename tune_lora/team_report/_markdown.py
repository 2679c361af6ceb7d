"""Tables as Markdown in which nothing but what is ours means anything. W&B's reports have no table of their own."""

from __future__ import annotations

import re

from tune_lora.errors import one_line
from tune_lora.team_report._parts import Cell, Code, Link, Table

_MEANT = re.compile(r"[!-/:-@\[-`{-~]")
"""Every character that Markdown may read as its own: ASCII punctuation, each of which a backslash makes plain."""
_HARMLESS = frozenset(",;%'+-()")
"""Of these none begins anything within a cell: parentheses only behind a bracket, which is not among them."""
_NUMBER = re.compile(r"(?<=\d)\\\.(?=\d)")


def escaped(text: str) -> str:
    """A text that Markdown shows as it is: no markup, no HTML, no link, no formula; one line, without characters that
    turn the direction of writing."""
    plain = _MEANT.sub(lambda found: found[0] if found[0] in _HARMLESS else f"\\{found[0]}", one_line(text))
    return _NUMBER.sub(".", plain)  # 0.131 stays legible to whoever edits the report


def table(told: Table) -> str:
    """A table in Markdown; an empty one is its head."""
    line = ["---:" if column in told.numbers else "---" for column in range(len(told.head))]
    rows = [[escaped(name) for name in told.head], line, *([_cell(one) for one in row] for row in told.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(cell: Cell) -> str:
    if isinstance(cell, Code):
        return escaped(cell.text)  # a code span cannot hold a backtick or a bar for certain
    if isinstance(cell, Link):
        return f"[{escaped(cell.text)}]({cell.url})" if cell.url else escaped(cell.text)
    return escaped(cell)
