"""Which columns of which file are what: plain values, nothing read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ChemKind = Literal["descriptors", "fingerprint", "both"]
OnBad = Literal["error", "drop"]
EmptyGroup = Literal["together", "own", "error"]
AUTO = "auto"
"""As the one feature: every numeric column that is nothing else."""


@dataclass(frozen=True)
class SmilesColumn:
    """A column of molecules, and what each becomes.

    `split` cuts a cell into `parts`, molecules with features of their own. `bits` and `radius` are the Morgan
    fingerprint's. With `per_atom`, descriptors that grow with the molecule are divided by its heavy atoms, so that a
    chain of six units is what a chain of nine is.
    """

    column: str
    split: str | None = None
    parts: tuple[str, ...] = ()
    kind: ChemKind = "descriptors"
    bits: int = 256
    radius: int = 2
    per_atom: bool = False

    @property
    def molecules(self) -> tuple[str, ...]:
        """The names of the molecules of a cell: its parts, or the column."""
        return self.parts or (self.column,)

    def mistake(self) -> str | None:
        """What is wrong with these settings, in one line, or None."""
        if (self.split is None) != (len(self.parts) < 2):
            return (
                f"smiles {self.column!r}: got split {self.split!r} with parts {list(self.parts)}; must be both (two "
                "names or more) or neither"
            )
        if len(set(self.parts)) < len(self.parts):
            return f"smiles {self.column!r}: got parts {list(self.parts)}; must be different names"
        if self.bits < 8 or self.radius < 0:
            return f"smiles {self.column!r}: got bits {self.bits}, radius {self.radius}; must be from 8 and from 0"
        return None


@dataclass(frozen=True)
class LabelSource:
    """A second label of the same rows: another file, row by row in the same order, equal in the columns `match`."""

    path: Path
    target: str
    match: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableSource:
    """One table: a CSV or Parquet file, and which of its columns are what.

    `target_kind` says whether the target is a number or a class (kept as text). `key` are the columns that say which
    entity a row is. `on_bad` is what becomes of rows that cannot be read: `error` lists them all, `drop` leaves them
    out and says so in the table's notes. Rows whose group is empty are one group (`together`), a group each (`own`) or
    an error.
    """

    path: Path
    features: tuple[str, ...] = (AUTO,)
    target: str | None = None
    target_kind: Literal["number", "class"] = "number"
    group: str | None = None
    key: tuple[str, ...] = ()
    smiles: tuple[SmilesColumn, ...] = ()
    on_bad: OnBad = "error"
    empty_group: EmptyGroup = "together"
    labels: LabelSource | None = None
