"""What a team report is made of, as plain values: nothing of W&B's, and text that is not yet escaped for anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar

Part = TypeVar("Part")


@dataclass(frozen=True)
class Code:
    """A command or a name, shown as it would be typed."""

    text: str


@dataclass(frozen=True)
class Link:
    """Words that lead to a page at W&B; plain words where `url` is empty."""

    text: str
    url: str = ""


Words = str | Code | Link
Line = tuple[Words, ...]
Cell = Words


@dataclass(frozen=True)
class Heading:
    """`level` is 1 or 2."""

    text: str
    level: Literal[1, 2] = 1


@dataclass(frozen=True)
class Paragraph:
    """One paragraph."""

    line: Line


@dataclass(frozen=True)
class Callout:
    """One paragraph that must not be overlooked."""

    line: Line


@dataclass(frozen=True)
class Bullets:
    """A list."""

    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Table:
    """A table; each row is as long as `head`. `numbers` are the columns (from 0) that hold numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Contents:
    """A table of contents of the headings."""


@dataclass(frozen=True)
class Axis:
    """A value of each run: of its configuration or of its summary, by its name there."""

    section: Literal["config", "summary"]
    name: str
    is_log: bool = False
    is_inverted: bool = False


@dataclass(frozen=True)
class Scatter:
    """A point a run. `best_so_far` draws the lowest or highest value up to each x."""

    title: str
    x: Axis
    y: Axis
    best_so_far: Literal["min", "max"] | None = None


@dataclass(frozen=True)
class Curves:
    """A line a run over the metric `x`."""

    title: str
    x: str
    metric: str
    most_runs: int


@dataclass(frozen=True)
class Parallel:
    """Parallel coordinates, a line a run."""

    title: str
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class Importance:
    """W&B's own importance of each configuration value for a metric of the summaries."""

    metric: str


@dataclass(frozen=True)
class Pictures:
    """The table of pictures that each run has under `name`."""

    name: str


@dataclass(frozen=True)
class Comparer:
    """The runs' values side by side, those that differ."""


Panel = Scatter | Curves | Parallel | Importance | Pictures | Comparer


@dataclass(frozen=True)
class Runs:
    """Which runs panels show: those of the group `group`, or the `ids` where there are any."""

    label: str
    group: str = ""
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panels:
    """Panels over some runs, one row below the other where they are wide."""

    runs: Runs
    panels: tuple[Panel, ...]


Block = Heading | Paragraph | Callout | Bullets | Table | Contents | Panels


@dataclass(frozen=True)
class Notes:
    """The end of a report: a heading and a line, below which people write."""

    heading: str
    line: str


@dataclass(frozen=True)
class Page:
    """A whole report; its last blocks are the `notes`."""

    title: str
    description: str
    blocks: tuple[Block, ...]
    notes: Notes


def each_text(part: Part, change: Callable[[str], str]) -> Part:
    """The same part with every text in it changed."""
    made: Any = part
    if isinstance(part, str):
        made = change(part)
    elif isinstance(part, tuple):
        made = tuple(each_text(one, change) for one in part)
    elif is_dataclass(part) and not isinstance(part, type):
        made = type(part)(**{one.name: each_text(getattr(part, one.name), change) for one in fields(part)})
    return made
