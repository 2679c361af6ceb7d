"""Tables on disk: columns of cells as they stand in a CSV, TSV or Parquet file, with the line of each row."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tune_lora.errors import InputError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_MARKS = (";", "\t", ",", "|")
_BLOCK = 1 << 20
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a file, untouched: text of a CSV, typed values of a Parquet file, None where there is none.

    `lines` ``(n,)`` counts records with the header as line 1; of a Parquet file the first row is line 1. `ragged` are
    the lines that have too few or too many cells, with what is wrong; they are in no column, and neither are blank
    lines.
    """

    path: Path
    columns: dict[str, list[Any]]
    lines: np.ndarray
    ragged: dict[int, str]

    @property
    def count(self) -> int:
        """Rows that hold anything, ragged ones with them."""
        return len(self.lines) + len(self.ragged)

    def places(self) -> list[int]:
        """The place of each row in the file, counted from 0, with ragged rows and without blank lines."""
        order = {line: place for place, line in enumerate(sorted([*self.lines.tolist(), *self.ragged]))}
        return [order[line] for line in self.lines.tolist()]


def load(path: Path) -> Cells:
    """All cells of a table.

    Raises:
        InputError: there is no such file, it is of another kind, it cannot be read, or two columns have one name.
    """
    suffix = path.suffix.lower()
    if suffix not in (*_DELIMITERS, *_PARQUET):
        raise InputError(f"{path}: got a {suffix or 'plain'} file; must be .csv, .tsv or .parquet")
    if not path.is_file():
        raise InputError(f"{path} does not exist; must be a table (.csv, .tsv or .parquet)")
    try:
        return _parquet(path) if suffix in _PARQUET else _csv(path, _DELIMITERS[suffix])
    except (ValueError, OSError) as error:  # ArrowInvalid and UnicodeDecodeError are ValueErrors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} cannot be read as {suffix[1:]} in UTF-8: {reason}") from None


def _parquet(path: Path) -> Cells:
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(path).read()
    _must_differ(path, table.column_names)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return Cells(path, columns, np.arange(1, table.num_rows + 1), {})


def _csv(path: Path, delimiter: str) -> Cells:
    import pyarrow
    import pyarrow.csv

    names = _header(path, delimiter)
    ragged: dict[int, str] = {}

    def leave_out(row: Any) -> str:
        ragged[row.number] = f"got {row.actual_columns} cells; must be {row.expected_columns}, as in the header"
        return "skip"

    table = pyarrow.csv.read_csv(
        path,
        pyarrow.csv.ReadOptions(use_threads=False),  # or rows are not numbered
        pyarrow.csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=leave_out
        ),
        pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.string()), strings_can_be_null=False),
    )
    count = table.num_rows + len(ragged)
    lines = np.setdiff1d(np.arange(2, count + 2), np.array(list(ragged), dtype=np.int64))
    columns = {name: table[name].to_pylist() for name in names}
    filled = np.array([any(cell.strip() for cell in row) for row in zip(*columns.values(), strict=True)], dtype=bool)
    kept = {name: [cell for cell, full in zip(cells, filled, strict=True) if full] for name, cells in columns.items()}
    return Cells(path, kept, lines[filled], ragged)


def _header(path: Path, delimiter: str) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        names = next(csv.reader(file, delimiter=delimiter), [])
        while file.read(_BLOCK):  # all of it must be UTF-8: the reader of ragged rows takes that for granted
            pass
    _must_be_separated(path, names, delimiter)
    _must_differ(path, names)
    return names


def _must_be_separated(path: Path, names: Sequence[str], delimiter: str) -> None:
    marks = [mark for mark in _MARKS if mark != delimiter and len(names) == 1 and mark in names[0]]
    if marks:
        wanted = {",": "commas", "\t": "tabs"}[delimiter]
        raise InputError(
            f"{path}: has one column only, {names[0]!r}; is it separated by {marks[0]!r}? A {path.suffix.lower()} file "
            f"must be separated by {wanted}"
        )


def _must_differ(path: Path, names: Sequence[str]) -> None:
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise InputError(f"{path}: two columns are named {twice[0]!r}; every column must have a name of its own")
