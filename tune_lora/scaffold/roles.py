"""What the columns of a table look like: classes, numbers to learn from, or what only tells rows apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from trainables.classification.listing import columns_of
from trainables.tables.cells import is_empty, number
from trainables.tables.files import load
from trainables.tables.roles import number_columns
from trainables.tables.source import TableSource
from tune_lora.errors import InputError

_NAMES = re.compile(r"(id|idx|index|nr|no|row|row_?(id|nr|number)|.+_(id|idx|index)|unnamed.*)", re.IGNORECASE)
"""What a column is called that says which row or entity it is."""


@dataclass(frozen=True)
class Features:
    """The columns that are learnt from, and sentences on those that are not. `are_automatic`: ``auto`` takes the
    same."""

    names: tuple[str, ...]
    left_out: tuple[str, ...]
    are_automatic: bool


def must_be_classes(path: Path, label: str) -> None:
    """Sees that a column can be classes: no fractions, and values that repeat.

    Raises:
        InputError: it cannot.
    """
    values = [str(cell).strip() for cell in columns_of(path)[0][label] if not is_empty(cell)]
    numbers = [number(value) for value in values]
    different = len(set(values))
    if any(value is not None and not value.is_integer() for value in numbers):
        what = f"numbers ({different} different values in {len(values)} rows)"
    elif different * 2 > len(values):
        what = f"{different} different values in {len(values)} rows"
    else:
        return
    raise InputError(
        f"{path}: {label!r} holds {what}, but a classifier predicts classes; --target must be a column of classes. A "
        "number is predicted with --task transfer --stage1 FILE, which needs a second table"
    )


def features_of(path: Path, label: str) -> Features:
    """The columns of numbers, but those that only tell rows or entities apart.

    Raises:
        InputError: none is left.
    """
    cells = load(path)
    names, left_out = number_columns(TableSource(path, target=label, target_kind="class"), cells)
    only = [name for name in names if _tells_apart(name, cells.columns[name])]
    kept = tuple(name for name in names if name not in only)
    said = ", ".join(map(repr, only))
    if not kept:
        raise InputError(f"{path}: must have something to learn from: no column of numbers is left without {said}")
    sentences = [f"left out, for they only say which row or entity it is: {said}"] if only else []
    sentences += [note.removeprefix(f"{path}: ") for note in left_out]
    return Features(kept, tuple(sentences), not only)


def _tells_apart(name: str, cells: Sequence[Any]) -> bool:
    """Whether a column is called like an id and holds whole numbers, or counts the rows."""
    filled = [cell for cell in cells if not is_empty(cell)]
    whole = [value for cell in filled if (value := number(cell)) is not None and value.is_integer()]
    if len(whole) < len(filled):
        return False
    steps = {after - before for before, after in pairwise(whole)}
    return _NAMES.fullmatch(name) is not None or (steps == {1.0} and len(whole) > 2)
