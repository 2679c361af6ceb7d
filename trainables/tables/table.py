"""A table as a trainer wants it: named numbers, a target, and who belongs together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Table:
    """n rows of d features.

    Attributes:
        features: ``(n, d)`` float32, finite.
        names: of the d features.
        target: ``(n,)`` float64, or for classes an object array of str; None where no column was named.
        labels: ``(n,)`` int64, 0 or 1, or None.
        groups: the group of each row, or None. Rows without one share ``""`` or have ``"row <line>"`` each.
        keys: which entity each row is: its key columns (SMILES in canonical form), joined by a tab; ``()`` where no key
            was named.
        rows: ``(n,)`` int64, the line of the file each row stands in: a CSV's header is line 1, and so is a Parquet
            file's first row.
        notes: what a person should know: rows left out and why, rows without a group, values that were clipped.
    """

    features: np.ndarray
    names: tuple[str, ...]
    target: np.ndarray | None
    labels: np.ndarray | None
    groups: tuple[str, ...] | None
    keys: tuple[str, ...]
    rows: np.ndarray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.features)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the target's classes in order; empty where it is a number."""
        if self.target is None or self.target.dtype != object:
            return ()
        return tuple(sorted({str(value) for value in self.target}))
