"""Labelled examples in memory, of any kind of data, and what is wrong with those that cannot be used."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from trainables.classification.listing import Row, Rows, columns_of, listing_of, rows_of
from trainables.classification.source import FILE_NAME, DataSource
from trainables.fingerprints import fingerprint
from trainables.tables.source import TableSource
from trainables.tables.table import Table
from tune_lora.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Examples:
    """n labelled examples.

    Attributes:
        kind: ``image``, ``image_text``, ``text`` or ``tabular``.
        classes: their names, in order.
        labels: ``(n,)`` int64, places in `classes`.
        places: where each stands, for messages.
        for_validation: ``(n,)`` bool: rows of a validation set of its own.
        images, texts: of each row, or None.
        features: ``(n, d)`` float32 of a table, or None; `names` are its columns.
        groups: the group of each row, or None.
        notes: what a person should know, such as rows that were left out.
    """

    kind: str
    classes: tuple[str, ...]
    labels: np.ndarray
    places: tuple[str, ...]
    for_validation: np.ndarray
    images: tuple[Path, ...] | None = None
    texts: tuple[str, ...] | None = None
    features: np.ndarray | None = None
    names: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def largest_classes(self, count: int | None) -> Examples:
        """Only the rows of the `count` classes with most rows (ties by name); None: all."""
        if count is None or count >= len(self.classes):
            return self
        sizes = Counter(self.labels.tolist())
        kept = sorted(sorted(sizes, key=lambda one: (-sizes[one], self.classes[one]))[:count])
        rows = np.flatnonzero(np.isin(self.labels, kept))
        return replace(
            self._rows(rows),
            classes=tuple(self.classes[one] for one in kept),
            labels=np.searchsorted(kept, self.labels[rows]).astype(np.int64),
        )

    def _rows(self, rows: np.ndarray) -> Examples:
        return replace(
            self,
            labels=self.labels[rows],
            places=tuple(self.places[row] for row in rows),
            for_validation=self.for_validation[rows],
            images=_of(self.images, rows),
            texts=_of(self.texts, rows),
            features=None if self.features is None else self.features[rows],
            groups=_of(self.groups, rows),
        )


def _of(values: tuple[T, ...] | None, rows: np.ndarray) -> tuple[T, ...] | None:
    return None if values is None else tuple(values[row] for row in rows)


def kind_of(source: DataSource) -> str:
    """What `kind: auto` is, by what is there.

    Raises:
        InputError: nothing can be read.
    """
    if source.kind != "auto":
        return source.kind
    listing = listing_of(source.path)
    if listing is None or _lists_files(listing, listing.stat().st_mtime_ns):
        return "image" if source.text is None else "image_text"
    return "tabular" if source.text is None else "text"


@functools.lru_cache(maxsize=4)
def _lists_files(listing: Path, _changed: int) -> bool:
    return FILE_NAME in columns_of(listing)[0]


def read(source: DataSource) -> Examples:
    """All examples of a source.

    Raises:
        InputErrors: rows that cannot be used, unless they may be dropped; columns that do not exist.
        InputError: nothing can be read, or there are fewer than two classes.
    """
    kind = kind_of(source)
    if kind == "tabular":
        return _of_table(source)
    parts = {"images": kind != "text", "texts": kind != "image"}
    rows = _without_lonely(rows_of(source, source.path, **parts))
    notes = rows.settle(source.on_bad, source.path)
    apart = Rows()
    if source.validation is not None:
        apart = _of_known_classes(rows_of(source, source.validation, **parts), {row.label for row in rows.good})
        notes += apart.settle(source.on_bad, source.validation)
    together = [*rows.good, *apart.good]
    classes = _classes(source, [row.label for row in rows.good])
    return Examples(
        kind=kind,
        classes=classes,
        labels=np.array([classes.index(row.label) for row in together], dtype=np.int64),
        places=tuple(row.place for row in together),
        for_validation=np.arange(len(together)) >= len(rows.good),
        images=tuple(row.image for row in together if row.image is not None) if parts["images"] else None,
        texts=tuple(row.text or "" for row in together) if parts["texts"] else None,
        groups=tuple(row.group or "" for row in together) if source.group is not None else None,
        notes=tuple(notes),
    )


def fingerprint_of(examples: Examples) -> str:
    """A digest of all that is learnt from, whatever the files are called and wherever they lie."""
    lists = [examples.classes, examples.texts or (), examples.names, examples.groups or ()]
    arrays = [examples.labels, examples.for_validation]
    arrays += [] if examples.features is None else [examples.features]
    return fingerprint([examples.kind, *lists, *arrays], examples.images or ())


def class_count(source: DataSource) -> int:
    """How many classes there are; read once for the same source while its listing does not change.

    Raises:
        InputError: as `read`.
    """
    listing = listing_of(source.path) or source.path
    return _class_count(source, listing.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _class_count(source: DataSource, _changed: int) -> int:
    return len(read(source).classes)


def _classes(source: DataSource, labels: Sequence[str]) -> tuple[str, ...]:
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise InputError(
            f"{source.path}: got {len(classes)} class{'es' * (not classes)} in {source.label!r}; must be two at least"
        )
    return classes


def _without_lonely(rows: Rows) -> Rows:
    """A class with one row cannot be learnt and judged."""
    sizes = Counter(row.label for row in rows.good)
    bad = [
        f"{row.place}: is the only row of class {row.label!r}; must be two at least, to learn from and to judge by"
        for row in rows.good
        if sizes[row.label] == 1
    ]
    return Rows([row for row in rows.good if sizes[row.label] > 1], rows.bad + bad)


def _of_known_classes(rows: Rows, classes: set[str]) -> Rows:
    bad = [
        f"{row.place}: class {row.label!r} is in no training row; must be one of {', '.join(sorted(classes))}"
        for row in rows.good
        if row.label not in classes
    ]
    return Rows([row for row in rows.good if row.label in classes], rows.bad + bad)


def _of_table(source: DataSource) -> Examples:
    table = _table(source, source.path, source.features)
    rows = _without_lonely(_rows_of_table(source.path, table))
    tables, parts, notes = [table], [rows], [*table.notes, *rows.settle(source.on_bad, source.path)]
    if source.validation is not None:
        apart = _table(source, source.validation, table.names)
        held = _of_known_classes(_rows_of_table(source.validation, apart), {row.label for row in rows.good})
        tables, parts = [table, apart], [rows, held]
        notes += [*apart.notes, *held.settle(source.on_bad, source.validation)]
    kept = [_kept(one, part) for one, part in zip(tables, parts, strict=True)]
    good = [row for part in parts for row in part.good]
    classes = _classes(source, [row.label for row in rows.good])
    return Examples(
        kind="tabular",
        classes=classes,
        labels=np.array([classes.index(row.label) for row in good], dtype=np.int64),
        places=tuple(row.place for row in good),
        for_validation=np.arange(len(good)) >= len(rows.good),
        features=np.concatenate([one.features[rows] for one, rows in zip(tables, kept, strict=True)]),
        names=table.names,
        groups=tuple(row.group or "" for row in good) if source.group is not None else None,
        notes=tuple(notes),
    )


def _table(source: DataSource, path: Path, features: tuple[str, ...]) -> Table:
    from trainables.tables.reading import read as read_table

    return read_table(
        TableSource(
            path=path,
            features=features,
            target=source.label,
            target_kind="class",
            group=source.group,
            on_bad=source.on_bad,
        )
    )


def _rows_of_table(path: Path, table: Table) -> Rows:
    assert table.target is not None
    groups: Sequence[str | None] = table.groups or [None] * len(table)
    return Rows(
        [
            Row(f"{path}:{line}", str(label), group=group)
            for line, label, group in zip(table.rows.tolist(), table.target, groups, strict=True)
        ]
    )


def _kept(table: Table, rows: Rows) -> np.ndarray:
    """Which of a table's rows are among the good ones."""
    lines = {int(row.place.rpartition(":")[2]) for row in rows.good}
    return np.array([line in lines for line in table.rows.tolist()], dtype=bool)
