"""The `phases` section of a study file: a search in steps, each from the best of the one before."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from tune_lora.closed import Closed


class ClaimSpec(Closed):
    """A gain that somebody promised for a change, to hold the measured one against. `low` and `high` are in the unit of
    the objective (of an accuracy, 0.05 is five points), better is positive."""

    change: dict[str, Any] = Field(min_length=1, description="settings and their promised values")
    low: float = Field(description="least that was promised")
    high: float = Field(description="most that was promised")

    @model_validator(mode="after")
    def low_is_below_high(self) -> ClaimSpec:
        if self.low > self.high:
            raise ValueError(f"got low {self.low:g} above high {self.high:g}; must be the other way round")
        return self


class PhaseSpec(Closed):
    """One phase: the parameters of the space that it searches; all others stay as they are at its start."""

    name: str = Field(description="of the phase and of its part of the results")
    parameters: tuple[str, ...] = Field(min_length=1, description="of the space, that it searches")
    n_trials: int = Field(10, ge=1, description="of its search")
    claims: tuple[ClaimSpec, ...] = Field((), description="promised gains, to be measured beside it")

    @field_validator("name")
    @classmethod
    def name_is_a_folder_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}", value):
            raise ValueError(f"got {value!r}; must be letters, digits, '_' or '-', starting with a letter or digit")
        return value


class AblationSpec(Closed):
    """How gains are measured: the phase's start, its best and every single change between them, each trained again with
    the same few seeds that the search has not seen."""

    seeds: int = Field(3, ge=2, le=50, description="with which each candidate is trained again")
    confidence: float = Field(0.9, gt=0.5, lt=1, description="of the intervals")
