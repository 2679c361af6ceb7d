"""From a file to a table: every row that cannot be used is listed, all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trainables.tables import chem
from trainables.tables.cells import BadRows, is_empty, number_mistake, numbers
from trainables.tables.files import Cells, load
from trainables.tables.labels import read_labels
from trainables.tables.roles import column_mistakes, number_columns, role_mistakes
from trainables.tables.source import SmilesColumn, TableSource
from trainables.tables.table import Table
from tune_lora.errors import InputError, InputErrors


def read(source: TableSource) -> Table:
    """The table that a source describes.

    Raises:
        InputErrors: columns that do not exist or have two roles; rows that cannot be used, unless they may be dropped.
        InputError: a file that cannot be read, no features, no row left, RDKit absent.
    """
    if mistakes := role_mistakes(source):
        raise InputErrors(mistakes)
    cells = load(source.path)
    if mistakes := column_mistakes(source, cells):
        raise InputErrors(mistakes)
    names, notes = number_columns(source, cells)
    bad = BadRows(source.path)
    for line, what in cells.ragged.items():
        bad.add(line, "", what)
    rows = _rows(source, cells, names, bad)
    if source.labels is not None:
        rows = replace(rows, labels=read_labels(source.labels, cells, bad))
    if bad.lines and source.on_bad == "error":
        raise InputErrors(bad.mistakes())
    if bad.lines:
        rows = rows.where(np.array([line not in bad.lines for line in cells.lines.tolist()], dtype=bool))
        notes.append(bad.note(cells.count))
    if not len(rows.lines):
        raise InputError(f"{source.path}: got no row that can be used; must be one at least")
    return _table(source, names, rows, notes)


@dataclass(frozen=True, eq=False)
class _Molecules:
    """The molecules of one column, or one part of it, row by row in canonical form."""

    column: SmilesColumn
    name: str
    smiles: list[str]


@dataclass(frozen=True, eq=False)
class _Rows:
    """What a table is made of, row by row."""

    lines: np.ndarray
    numbers: list[np.ndarray]
    molecules: list[_Molecules]
    target: list[Any] | None
    group: list[Any] | None
    key: list[list[Any]]
    labels: np.ndarray | None = None

    def where(self, good: np.ndarray) -> _Rows:
        """The good rows only."""

        def kept(cells: Sequence[Any]) -> list[Any]:
            return [cell for cell, keep in zip(cells, good, strict=True) if keep]

        return _Rows(
            self.lines[good],
            [column[good] for column in self.numbers],
            [replace(one, smiles=kept(one.smiles)) for one in self.molecules],
            None if self.target is None else kept(self.target),
            None if self.group is None else kept(self.group),
            [kept(column) for column in self.key],
            None if self.labels is None else self.labels[good],
        )


def _rows(source: TableSource, cells: Cells, names: Sequence[str], bad: BadRows) -> _Rows:
    """The cells of every role; what is wrong in them is added to `bad`."""

    def checked(name: str | None, mistake: Callable[[Any], str | None]) -> list[Any] | None:
        if name is None:
            return None
        bad.add_each(cells.lines.tolist(), name, map(mistake, cells.columns[name]))
        return cells.columns[name]

    for name in names:
        checked(name, number_mistake)
    molecules = [found for column in source.smiles for found in _molecules(column, cells, bad)]
    of_smiles = {column.column for column in source.smiles}
    for name in source.key:
        if name not in of_smiles:
            checked(name, _must_be("a key"))
    return _Rows(
        cells.lines,
        [numbers(cells.columns[name]) for name in names],
        molecules,
        checked(source.target, number_mistake if source.target_kind == "number" else _must_be("a class")),
        checked(source.group, _must_be("a group") if source.empty_group == "error" else _anything),
        _key(source, cells, molecules),
    )


def _must_be(what: str) -> Callable[[Any], str | None]:
    return lambda cell: f"is empty; must be {what}" if is_empty(cell) else None


def _anything(_: Any) -> None:
    return None


def _molecules(column: SmilesColumn, cells: Cells, bad: BadRows) -> list[_Molecules]:
    """Each molecule of a column's cells; empty where it cannot be read."""
    found = [_Molecules(column, name, []) for name in column.molecules]
    for line, cell in zip(cells.lines.tolist(), cells.columns[column.column], strict=True):
        text = "" if cell is None else str(cell)
        parts = text.split(column.split) if column.split is not None else [text]
        if len(parts) != len(found):
            wanted = repr(column.split).join(column.molecules)
            bad.add(line, column.column, f"got {len(parts)} molecules; must be {len(found)}: {wanted}")
            parts = []
        for index, one in enumerate(found):
            one.smiles.append(_canonical(parts[index], line, one, bad) if parts else "")
    return found


def _canonical(smiles: str, line: int, one: _Molecules, bad: BadRows) -> str:
    try:
        return chem.canonical(smiles)
    except ValueError as error:
        bad.add(line, one.column.column, f"{one.name} {error}" if one.column.parts else str(error))
        return ""


def _key(source: TableSource, cells: Cells, molecules: Sequence[_Molecules]) -> list[list[Any]]:
    """The columns that say which entity a row is; its molecules where nothing was named."""
    if not source.key:
        return [one.smiles for one in molecules]
    key: list[list[Any]] = []
    for name in source.key:
        parts = [one.smiles for one in molecules if one.column.column == name]
        key += parts or [cells.columns[name]]
    return key


def _table(source: TableSource, names: Sequence[str], rows: _Rows, notes: list[str]) -> Table:
    blocks, all_names = [column[:, None] for column in rows.numbers], list(names)
    for one in rows.molecules:
        values, added, more = chem.features(one.smiles, one.column, one.name)
        blocks.append(values)
        all_names += added
        notes += [f"{source.path}: {note}" for note in more]
    groups, more = _groups(source, rows)
    return Table(
        features=np.concatenate(blocks, axis=1).astype(np.float32),
        names=tuple(all_names),
        target=_target(source, rows.target),
        labels=rows.labels,
        groups=groups,
        keys=tuple("\t".join(_text(cell) for cell in cells) for cells in zip(*rows.key, strict=True)),
        rows=rows.lines,
        notes=(*notes, *more),
    )


def _target(source: TableSource, cells: list[Any] | None) -> np.ndarray | None:
    if cells is None:
        return None
    if source.target_kind == "number":
        return numbers(cells)
    return np.array([_text(cell) for cell in cells], dtype=object)


def _groups(source: TableSource, rows: _Rows) -> tuple[tuple[str, ...] | None, list[str]]:
    """The group of each row, and a note on those that have none."""
    if rows.group is None:
        return None, []
    empty = [is_empty(cell) for cell in rows.group]
    own = source.empty_group == "own"
    groups = tuple(
        (f"row {line}" if own else "") if none else _text(cell)
        for cell, none, line in zip(rows.group, empty, rows.lines.tolist(), strict=True)
    )
    if not any(empty):
        return groups, []
    said = "each is a group of its own" if own else "they are one group"
    return groups, [f"{source.path}: {source.group}: {sum(empty)} rows have no group; {said}"]


def _text(cell: Any) -> str:
    """A cell as text, a whole number of a Parquet file as in a CSV."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()
