"""The `custom` section of a study file: what it must know of a trainer of the user's own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tune_lora.closed import Closed


class CustomSpec(Closed):
    """Each may also be an attribute of the function: ``train.horizon = "epochs"``."""

    horizon: int | str | None = Field(None, description="budget of a whole trial, or the setting that holds it")
    unit: Literal["epoch", "step", "fold"] | None = Field(None, description="what is counted; null: epoch")
    metrics: tuple[str, ...] | None = Field(None, description="what is reported; null: the trials will show")
