"""Rows of labelled images and texts, out of folders and listings. What is wrong with a row is listed, not raised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables import json_text
from trainables.classification.source import FILE_NAME, DataSource
from trainables.lora.pictures import IMAGE_SUFFIXES, checked_size
from trainables.paths import inside
from trainables.tables.files import load
from tune_lora.errors import InputError, InputErrors, nearest

SHOWN = 20
"""Mistakes of rows that are spelled out; more are counted."""


@dataclass(frozen=True)
class Row:
    """One labelled example. `place` is where it stands, for messages."""

    place: str
    label: str
    image: Path | None = None
    text: str | None = None
    group: str | None = None


@dataclass
class Rows:
    """The rows that can be used, and what is wrong with the others."""

    good: list[Row] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def settle(self, on_bad: str, where: Path) -> list[str]:
        """Notes on the rows that were left out.

        Raises:
            InputErrors: there are bad rows, and they may not be dropped.
        """
        if not self.bad:
            return []
        shown = self.bad[:SHOWN]
        if len(self.bad) > SHOWN:
            shown.append(f"{where}: {len(self.bad) - SHOWN} more such rows")
        if on_bad == "error":
            raise InputErrors(shown)
        return [f"{where}: {len(self.bad)} of {len(self.bad) + len(self.good)} rows are left out", *shown]


def listing_of(path: Path) -> Path | None:
    """The file that lists a folder's examples, or the file that was given; None for a folder with a subfolder a class.

    Raises:
        InputError: there is nothing at the path, or several listings.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"data.path: {str(path)!r} does not exist; must be a folder of images, a listing or a table")
    if (path / "metadata.jsonl").is_file():
        return path / "metadata.jsonl"
    tables = sorted(path.glob("*.csv"))
    if len(tables) > 1:
        raise InputError(
            f"{path} holds {', '.join(table.name for table in tables)}; must hold one listing, or the path be the file"
        )
    return tables[0] if tables else None


def columns_of(listing: Path) -> tuple[dict[str, list[Any]], list[int]]:
    """The columns of a .jsonl, .csv, .tsv or .parquet file, and the line of each row.

    Raises:
        InputErrors: it cannot be read; of a .jsonl each line that is no object.
    """
    if listing.suffix.lower() != ".jsonl":
        cells = load(listing)
        if cells.ragged:
            raise InputErrors(f"{listing}:{line}: {what}" for line, what in sorted(cells.ragged.items()))
        return cells.columns, cells.lines.tolist()
    entries = list(_objects(listing))
    names = dict.fromkeys(name for _, entry in entries for name in entry)
    return {name: [entry.get(name) for _, entry in entries] for name in names}, [line for line, _ in entries]


def _objects(listing: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        lines = listing.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{listing}: is not UTF-8 text; must be one JSON object a line") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                entry = json_text.parse(line)
            except ValueError:
                entry = None
            if not isinstance(entry, dict):
                raise InputError(f"{listing}:{number}: must be a JSON object with {FILE_NAME} and the label")
            yield number, entry


def rows_of(source: DataSource, path: Path, *, images: bool, texts: bool) -> Rows:
    """The examples at `path` (the source's, or that of its validation rows).

    Raises:
        InputError: nothing can be read there.
        InputErrors: columns are missing.
    """
    listing = listing_of(path)
    rows = _in_subfolders(source, path) if listing is None else _listed(source, listing, images=images, texts=texts)
    if images:
        _look_at_images(rows)
    return rows


def _in_subfolders(source: DataSource, path: Path) -> Rows:
    for name, column in (("text", source.text), ("group", source.group)):
        if column is not None:
            raise InputError(
                f"data.{name}: got {column!r}, but {path} has no listing with columns; must be left out, or the folder "
                f"hold a metadata.jsonl with {FILE_NAME}, {source.label} and {column}"
            )
    found = [
        Row(str(image), folder.name, image)
        for folder in sorted(one for one in path.iterdir() if one.is_dir())
        for image in sorted(one for one in folder.rglob("*") if one.suffix.lower() in IMAGE_SUFFIXES)
    ]
    if not found:
        raise InputError(
            f"{path} holds no images; must hold one subfolder a class with {', '.join(IMAGE_SUFFIXES)} files, or a "
            "metadata.jsonl"
        )
    rows = Rows()
    for row in found:
        if inside(path, Path(row.place).relative_to(path)) is None:
            rows.bad.append(f"{row.place}: is a link that leaves {path}; must lead to a file inside it")
        else:
            rows.good.append(row)
    return rows


def _listed(source: DataSource, listing: Path, *, images: bool, texts: bool) -> Rows:
    columns, lines = columns_of(listing)
    wanted = {"label": source.label, "group": source.group}
    wanted |= {"text": source.text} if texts else {}
    _must_have(listing, columns, wanted, images=images)
    rows = Rows()
    for index, line in enumerate(lines):
        cells = {role: _text(columns[name][index]) for role, name in wanted.items() if name is not None}
        place = f"{listing}:{line}"
        empty = [name for role, name in wanted.items() if name is not None and role != "group" and not cells[role]]
        if empty:
            rows.bad.append(f"{place}: {', '.join(empty)}: is empty; must be there")
            continue
        name = _text(columns[FILE_NAME][index]) if images else ""
        if images and inside(listing.parent, name) is None:
            rows.bad.append(f"{place}: {name!r} is outside {listing.parent}; must be inside it")
            continue
        image = listing.parent / name if images else None  # messages name files as the user does, links and all
        rows.good.append(Row(place, cells["label"], image, cells.get("text"), cells.get("group")))
    return rows


def _must_have(listing: Path, columns: Mapping[str, Any], wanted: Mapping[str, str | None], *, images: bool) -> None:
    mistakes = [
        f"data.{role}: got {name!r}, which {listing.name} does not have; {nearest(name, columns)}"
        for role, name in wanted.items()
        if name is not None and name not in columns
    ]
    if "text" in wanted and wanted["text"] is None:
        mistakes.append(f"data.text is missing; must name the column of texts {nearest('text', columns)}")
    if images and FILE_NAME not in columns:
        mistakes.append(f"{listing}: has no column {FILE_NAME!r}; must have one to list images (has {_list(columns)})")
    if mistakes:
        raise InputErrors(mistakes)


def _list(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(sorted(names))


def _text(cell: Any) -> str:
    """A cell as text: a whole number of a Parquet file or a JSON object as in a CSV."""
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _look_at_images(rows: Rows) -> None:
    good = []
    for row in rows.good:
        assert row.image is not None
        try:
            checked_size(row.image)
        except InputError as error:
            rows.bad.append(f"{row.place}: {error}" if row.place != str(row.image) else str(error))
        else:
            good.append(row)
    rows.good = good
