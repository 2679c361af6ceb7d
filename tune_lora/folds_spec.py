"""The `cross_validation` section of a study file: in how many folds a trial is judged, and how they become one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tune_lora.closed import Closed

Aggregation = Literal["mean", "median", "pessimistic"]


class CrossValidationSpec(Closed):
    """The folds are the same for all trials of a study. `pessimistic` is the bad end of the one-sided 90% interval of
    the mean: it prefers what is good in every fold."""

    enabled: bool | None = Field(None, description="null: as the trainer has it (two_stage: always)")
    n_folds: int = Field(5, ge=2, le=50, description="in which every trial is judged")
    aggregation: Aggregation = Field("mean", description="how folds become one number")
    seed: int = Field(0, ge=0, description="of the folds, not of the trials")
