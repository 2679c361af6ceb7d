"""Rows of text data on disk: JSON Lines, JSON, Parquet, CSV and plain text. Loads no torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables import json_text
from tune_lora.errors import InputError, InputErrors

Row = Mapping[str, Any]
_TURNS = ({"role", "content"}, {"from", "value"})
"""What a turn of a conversation holds."""
SHOWN_LETTERS = 40
SHOWN_MISTAKES = 5
"""Of one file: a wrong export has the same mistake on every line."""
_LONGEST_FIELD = 2**31 - 1


def read(path: Path) -> list[Row]:
    """The rows of a file, in its order; of plain text one row with the whole file as ``text``.

    Raises:
        InputErrors: the file is absent, empty, of an unknown kind, or cannot be read as what it is.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"data {str(path)!r} {kind}; must be a file ({', '.join(_READERS)})")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"data {str(path)!r}: got a {path.suffix or 'nameless'} file; must be {', '.join(_READERS)}")
    try:
        rows = reader(path)
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8; must be text in UTF-8") from None
    if not rows:
        raise InputError(f"{path}: holds no examples; must hold at least one")
    return rows


def _json_lines(path: Path) -> list[Row]:
    rows: list[Row] = []
    mistakes: list[str] = []
    # A line ends at a line feed alone: JSON allows other marks that Python takes for line ends (U+2028) in a value.
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json_text.parse(line)
        except ValueError as error:
            mistakes.append(f"{path}:{number}: is not JSON ({error.args[0].partition(':')[0]})")
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            mistakes.append(f"{path}:{number}: got a {type(row).__name__}; must be an object with named fields")
    raise_the_first(mistakes)
    return rows


def _json(path: Path) -> list[Row]:
    try:
        content = json_text.parse(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error.args[0]})") from None
    if isinstance(content, dict):
        content = _rows_of_an_object(content)
    if not isinstance(content, list):
        raise InputError(f"{path}: got {json.dumps(content)[:SHOWN_LETTERS]}; must be a list of objects")
    wrong = [index for index, row in enumerate(content) if not isinstance(row, dict)]
    raise_the_first([f"{path}: entry {index}: must be an object with named fields" for index in wrong])
    return content


def _rows_of_an_object(content: dict[str, Any]) -> list[Any]:
    """The rows of an export that names its one list of them; else the object is a row itself, such as a conversation
    with its list of turns."""
    lists = [value for value in content.values() if isinstance(value, list)]
    is_export = len(lists) == 1 and (not lists[0] or any(_may_be_a_row(entry) for entry in lists[0]))
    return lists[0] if is_export else [content]


def _may_be_a_row(entry: Any) -> bool:
    return isinstance(entry, dict) and not any(turn <= entry.keys() for turn in _TURNS)


def _parquet(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_table(path).to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None


def _csv(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file, _fields_of_any_length():
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        try:
            rows = [{name: value for name, value in row.items() if name is not None} for row in reader]
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: is not CSV ({error})") from None
    return list(rows)


@contextmanager
def _fields_of_any_length() -> Generator[None, None, None]:
    """Python refuses fields of more than 131,072 characters, and a document may have more."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _text(path: Path) -> list[Row]:
    text = path.read_text("utf-8-sig")
    return [{"text": text}] if text.strip() else []


def raise_the_first(mistakes: list[str]) -> None:
    if len(mistakes) > SHOWN_MISTAKES:
        mistakes[SHOWN_MISTAKES:] = [f"... and {len(mistakes) - SHOWN_MISTAKES} more like these"]
    if mistakes:
        raise InputErrors(mistakes)


_READERS: Mapping[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _text,
    ".md": _text,
}
