"""The `transfer` section of a study file: two tables, and how the two-stage trainer uses them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from trainables.transfer.data import TransferTables
from trainables.transfer.judging import ScoreWeights
from trainables.transfer.synthetic import SyntheticTransfer
from trainables.two_stage import TransferSource, TwoStage
from tune_lora.closed import Closed
from tune_lora.table_spec import TableSpec


class SyntheticSpec(Closed):
    """The embedded transfer problem, drawn from its seed."""

    n_stage1: int = Field(1200, ge=20, description="rows with a computed label")
    n_stage2: int = Field(240, ge=20, description="rows with a measured value")
    artefact: float = Field(0.3, ge=0, lt=1, description="share of the computed label's variance that is wrong")
    noise1: float = Field(0.7, ge=0, description="of the computed label")
    noise2: float = Field(0.3, ge=0, description="of the measured value")
    n_groups: int = Field(20, ge=2, description="of rows, for the folds")
    seed: int = Field(0, ge=0, description="of the problem")

    @model_validator(mode="after")
    def half_of_the_measured_are_computed(self) -> SyntheticSpec:
        if self.n_stage2 > 2 * self.n_stage1:
            raise ValueError(f"n_stage2: got {self.n_stage2} beside n_stage1 {self.n_stage1}; must be at most twice it")
        return self


class ScoreWeightsSpec(Closed):
    """Of the four terms of the score."""

    exp_mae: float = Field(1.5, ge=0, description="times the error of the measured value")
    sol_f1: float = Field(2.0, ge=0, description="times 1 - F1 of the label")
    sol_recall: float = Field(1.5, ge=0, description="times 1 - recall of the label")
    stage1_mae: float = Field(0.1, ge=0, description="times the error of the computed label")


class TransferSpec(Closed):
    """`stage1` is the table with computed labels, `stage2` that with measured values; without both, the embedded
    problem."""

    stage1: TableSpec | None = None
    stage2: TableSpec | None = None
    synthetic: SyntheticSpec | None = None
    exclude_overlap: bool = Field(True, description="stage 1 does not see the entities of a fold's test rows")
    weights: ScoreWeightsSpec = ScoreWeightsSpec()
    stage1_seed: int | None = Field(0, ge=0, description="the same for every trial; null: the trial's own")
    stage1_held_out: float = Field(0.15, gt=0, lt=1, description="share of computed entities to judge stage 1 by")
    stage1_report_every: int = Field(10, ge=1, description="epochs")
    folds: Literal["auto", "batched", "blocks", "sequential"] = Field(
        "auto", description="side by side, the first two and then the others, or one by one; the results are the same"
    )
    cache: bool = Field(True, description="finished stage-1 results are kept and used again")

    @model_validator(mode="after")
    def both_tables_or_none(self) -> TransferSpec:
        if (self.stage1 is None) != (self.stage2 is None):
            given, missing = ("stage2", "stage1") if self.stage1 is None else ("stage1", "stage2")
            raise ValueError(f"got {given} without {missing}; must be both tables, or none for the embedded problem")
        if self.stage1 is not None and self.synthetic is not None:
            raise ValueError("got synthetic beside tables; must be one of them")
        return self

    @model_validator(mode="after")
    def tables_have_a_target(self) -> TransferSpec:
        for name, table in (("stage1", self.stage1), ("stage2", self.stage2)):
            if table is not None and table.target is None:
                raise ValueError(f"{name}.target is missing; must be the column of numbers that is learned")
        return self

    def source(self) -> TransferSource:
        """Where the data comes from."""
        if self.stage1 is not None and self.stage2 is not None:
            here = self.with_paths(lambda path: str(Path(path).expanduser().absolute()))  # workers may stand elsewhere
            assert here.stage1 is not None
            assert here.stage2 is not None
            return TransferTables(here.stage1.source(), here.stage2.source())
        return SyntheticTransfer(**(self.synthetic or SyntheticSpec()).model_dump())

    def trainer(self, cache: Path, **more: object) -> TwoStage:
        """The trainer with these settings and more of its own; `cache` is the folder of stage-1 results."""
        own = {field.name for field in fields(TwoStage)}
        settings = {name: value for name, value in self.model_dump().items() if name in own}
        settings["weights"] = ScoreWeights(**self.weights.model_dump())
        settings["cache"] = cache if self.cache else None
        return TwoStage(source=self.source(), **{**settings, **more})

    def with_paths(self, found: Callable[[str], str]) -> TransferSpec:
        """The same with each path as `found` has it."""
        tables = {"stage1": self.stage1, "stage2": self.stage2}
        updates = {name: table.with_paths(found) for name, table in tables.items() if table is not None}
        return self.model_copy(update=updates)
