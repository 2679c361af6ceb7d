"""The `cross_validation` section of a study file: in how many folds a trial is judged, and how they become one."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Aggregation = Literal["mean", "median", "pessimistic"]


class CrossValidationSpec(BaseModel):
    """The folds are the same for all trials of a study. `pessimistic` is the bad end of the one-sided 90% interval of
    the mean: it prefers what is good in every fold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool | None = Field(None, description="null: as the trainer has it (two_stage: always)")
    n_folds: int = Field(5, ge=2, le=50)
    aggregation: Aggregation = "mean"
    seed: int = Field(0, ge=0, description="of the folds, not of the trials")
