"""A table in a study file: which columns of which file are what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from trainables.tables.source import AUTO, LabelSource, SmilesColumn, TableSource
from tune_lora.closed import Closed


class SmilesSpec(Closed):
    """A column of SMILES, and what its molecules become in numbers (needs RDKit: ``pip install "tune-lora[chem]"``)."""

    column: str = Field(description="that holds the SMILES")
    split: str | None = Field(None, min_length=1, description="what stands between several molecules of a cell")
    parts: tuple[str, ...] = Field((), description="names of these molecules, such as [polymer, solvent]")
    kind: Literal["descriptors", "fingerprint", "both"] = Field("descriptors", description="what molecules become")
    bits: int = Field(256, ge=8, le=8192, description="of a fingerprint (Morgan)")
    radius: int = Field(2, ge=0, le=6, description="of a fingerprint, in bonds")
    per_atom: bool = Field(False, description="descriptors that grow with the molecule divided by its heavy atoms")

    @model_validator(mode="after")
    def parts_have_a_separator(self) -> SmilesSpec:
        if mistake := self.source().mistake():
            raise ValueError(mistake)
        return self

    def source(self) -> SmilesColumn:
        """The same as a plain value."""
        return SmilesColumn(**self.model_dump())


class LabelSpec(Closed):
    """A second label of the same rows, 0 or 1, in another file with the same rows in the same order."""

    path: str = Field(description="the file that holds the label")
    target: str = Field(description="the column of the label")
    match: tuple[str, ...] = Field((), description="columns that must be equal in both files, row by row")


class TableSpec(Closed):
    """A table: .csv, .tsv or .parquet, one row an example."""

    path: str = Field(description="a .csv, .tsv or .parquet file")
    features: tuple[str, ...] = Field((AUTO,), description="columns of numbers; auto: all that are nothing else")
    target: str | None = Field(None, description="the column to be predicted")
    group: str | None = Field(None, description="rows of one group are never in two folds")
    key: tuple[str, ...] = Field((), description="columns that say which entity a row is; none: its SMILES")
    smiles: tuple[SmilesSpec, ...] = ()
    on_bad: Literal["error", "drop"] = Field(
        "error", description="rows that cannot be read: list them, or drop and say so"
    )
    empty_group: Literal["together", "own", "error"] = Field("together", description="what rows without a group are")
    labels: LabelSpec | None = None

    @field_validator("features", "key", "smiles", mode="before")
    @classmethod
    def one_may_stand_alone(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | dict) else value

    def source(self, target_kind: Literal["number", "class"] = "number") -> TableSource:
        """What `trainables.tables.read` takes."""
        labels = None
        if self.labels is not None:
            labels = LabelSource(Path(self.labels.path), self.labels.target, self.labels.match)
        return TableSource(
            path=Path(self.path),
            features=self.features,
            target=self.target,
            target_kind=target_kind,
            group=self.group,
            key=self.key,
            smiles=tuple(column.source() for column in self.smiles),
            on_bad=self.on_bad,
            empty_group=self.empty_group,
            labels=labels,
        )

    def with_paths(self, found: Callable[[str], str]) -> TableSpec:
        """The same with each path as `found` has it."""
        labels = None
        if self.labels is not None:
            labels = self.labels.model_copy(update={"path": found(self.labels.path)})
        return self.model_copy(update={"path": found(self.path), "labels": labels})
