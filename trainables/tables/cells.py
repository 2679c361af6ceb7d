"""What a cell may be, and the list of the rows where one is not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHOWN = 20
"""Rows that are listed of each column; of the others, their number."""
_TRUTH = {"true": 1.0, "false": 0.0}
_LARGEST = float(np.finfo(np.float32).max)


def is_empty(cell: Any) -> bool:
    """None, or nothing but space."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def number(cell: Any) -> float | None:
    """The number that a cell holds, not finite perhaps; true and false are 1 and 0; None where it holds none."""
    if isinstance(cell, bool | int | float):
        return float(cell)
    text = str(cell).strip()
    if text.lower() in _TRUTH:
        return _TRUTH[text.lower()]
    try:
        return None if "_" in text else float(text)  # Python reads 1_0 as 10
    except ValueError:
        return None


def number_mistake(cell: Any) -> str | None:
    """What is wrong with a cell that must be a number of single precision, or None."""
    if is_empty(cell):
        return "is empty; must be a number"
    found = number(cell)
    if found is None:
        return f"got {cell!r}; must be a number"
    if not math.isfinite(found) or abs(found) > _LARGEST:
        return f"got {cell!r}; must be a finite number"
    return None


def label_mistake(cell: Any) -> str | None:
    """What is wrong with a cell that must be a label of two, or None."""
    if is_empty(cell):
        return "is empty; must be 0 or 1, true or false"
    return None if number(cell) in (0.0, 1.0) else f"got {cell!r}; must be 0 or 1, true or false"


def same(cell: Any, other: Any) -> bool:
    """Whether two cells say the same: as numbers where both are, else as text."""
    one, two = number(cell), number(other)
    return one == two if one is not None and two is not None else str(cell).strip() == str(other).strip()


class BadRows:
    """The rows of a table that cannot be used, and why; every reason is kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, list[tuple[int, str]]] = {}

    def add(self, line: int, column: str, what: str) -> None:
        """Notes what is wrong in a column of a line."""
        self._found.setdefault(column, []).append((int(line), what))

    def add_each(self, lines: Iterable[int], column: str, mistakes: Iterable[str | None]) -> None:
        """Notes the mistakes of a column, row by row; None is no mistake."""
        for line, what in zip(lines, mistakes, strict=True):
            if what is not None:
                self.add(line, column, what)

    @property
    def lines(self) -> set[int]:
        """The lines that cannot be used."""
        return {line for rows in self._found.values() for line, _ in rows}

    def mistakes(self) -> list[str]:
        """One line a row, up to `SHOWN` a column, then how many more there are."""
        told = []
        for column, rows in self._found.items():
            told += [f"{self._path}:{line}: {_of(column, what)}" for line, what in rows[:SHOWN]]
            if len(rows) > SHOWN:
                told.append(f"{self._path}: {_of(column, '')}the same kind of mistake in {len(rows) - SHOWN} more rows")
        return told

    def note(self, count: int) -> str:
        """What a person should know where the rows are left out of `count`."""
        reasons: dict[int, str] = {}
        for column, rows in self._found.items():
            for line, what in rows:
                reasons.setdefault(line, _of(column, what))
        shown = [f"line {line} ({reasons[line]})" for line in sorted(reasons)[:SHOWN]]
        more = f" and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
        return f"{self._path}: left out {len(reasons)} of {count} rows: {', '.join(shown)}{more}"


def _of(column: str, what: str) -> str:
    return f"{column}: {what}" if column else what


def numbers(cells: Sequence[Any]) -> np.ndarray:
    """``(n,)`` float64; NaN where a cell is no number."""
    found = (number(cell) if cell is not None else None for cell in cells)
    return np.array([math.nan if value is None else value for value in found], dtype=np.float64)
