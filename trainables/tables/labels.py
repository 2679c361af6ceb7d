"""A second label of the same rows, from another file."""

from __future__ import annotations

import numpy as np

from trainables.tables.cells import SHOWN, BadRows, label_mistake, number, same
from trainables.tables.files import Cells, load
from trainables.tables.roles import absent
from trainables.tables.source import LabelSource
from tune_lora.errors import InputError, InputErrors


def read_labels(source: LabelSource, cells: Cells, bad: BadRows) -> np.ndarray:
    """The label of each row, ``(n,)`` int64 of 0 and 1; -1 where there is none, which is added to `bad`.

    Raises:
        InputErrors: columns that do not exist, or rows that are not those of the table. The order of two files is not
            repaired by dropping rows.
        InputError: the number of rows differs, or the file cannot be read.
    """
    others = load(source.path)
    mistakes = [absent(others, "labels.target", source.target)] if source.target not in others.columns else []
    for name in source.match:
        mistakes += [absent(file, "labels.match", name) for file in (cells, others) if name not in file.columns]
    if mistakes:
        raise InputErrors(mistakes)
    if cells.count != others.count:
        raise InputError(
            f"{others.path}: labels: got {others.count} rows; must be {cells.count}, row by row those of {cells.path}"
        )
    pairs = _pairs(cells, others)
    _must_match(source, cells, others, pairs)
    labels = np.full(len(cells.lines), -1, dtype=np.int64)
    for index, other in enumerate(pairs):
        line = int(cells.lines[index])
        if other is None:
            bad.add(line, source.target, f"its row in {others.path} cannot be read")
            continue
        cell = others.columns[source.target][other]
        if (mistake := label_mistake(cell)) is None:
            labels[index] = int(number(cell) or 0)
        else:
            bad.add(line, source.target, f"{mistake} ({others.path}:{others.lines[other]})")
    return labels


def _pairs(cells: Cells, others: Cells) -> list[int | None]:
    """The row in the other file of each row that can be read; None where that one cannot."""
    theirs = {place: index for index, place in enumerate(others.places())}
    return [theirs.get(place) for place in cells.places()]


def _must_match(source: LabelSource, cells: Cells, others: Cells, pairs: list[int | None]) -> None:
    for name in source.match:
        ours, theirs = cells.columns[name], others.columns[name]
        differ = [(i, j) for i, j in enumerate(pairs) if j is not None and not same(ours[i], theirs[j])]
        told = [
            f"{cells.path}:{cells.lines[i]}: {name}: got {_short(ours[i])}, but {_short(theirs[j])} in {others.path}:"
            f"{others.lines[j]}; rows must be in the same order"
            for i, j in differ[:SHOWN]
        ]
        if len(differ) > SHOWN:
            told.append(f"{cells.path}: {name}: {len(differ) - SHOWN} more rows differ from those of {others.path}")
        if told:
            raise InputErrors(told)


def _short(cell: object) -> str:
    text = repr(cell)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"
