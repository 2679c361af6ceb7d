"""The `scheduler` section of a study file: which schedulers there are, their names, and what each of them reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from tune_lora.closed import Closed
from tune_lora.errors import InputError, nearest

AUTO = "auto"
"""A grace period that is measured (`tune_lora.scheduler.grace`)."""

_EVERY_REPORT = ("n_startup_trials", "n_warmup_steps", "interval_steps", "watch")

READS: Mapping[str, tuple[str, ...]] = {
    "asha": ("grace", "eta", "min_results", "promote"),
    "median": (*_EVERY_REPORT, "n_min_trials"),
    "percentile": ("percentile", *_EVERY_REPORT, "n_min_trials"),
    "hyperband": ("grace", "eta"),
    "successive_halving": ("grace", "eta"),
    "patient": ("patience", "min_delta", *_EVERY_REPORT, "n_min_trials"),
    "threshold": ("lower", "upper", "n_warmup_steps", "interval_steps", "watch"),
    "wilcoxon": ("p_threshold", "n_startup_steps", "watch"),
    "none": (),
}
"""Which settings each scheduler reads."""

DEFAULTS: Mapping[str, Any] = {
    "grace": 2,
    "eta": 3,
    "min_results": 2,
    "promote": False,
    "n_startup_trials": 5,
    "n_warmup_steps": 5,
    "interval_steps": 1,
    "n_min_trials": 1,
    "percentile": 25.0,
    "patience": 3,
    "min_delta": 0.0,
    "lower": None,
    "upper": None,
    "p_threshold": 0.1,
    "n_startup_steps": 2,
    "watch": None,
}

BY_FOLD: Mapping[str, Any] = {"n_warmup_steps": 2, "p_threshold": 0.3}
"""Defaults where trials are judged in a few folds. Wilcoxon's smallest p-values are 1/4 after two folds, 1/8 after
three and 1/16 after four: at 0.1 nobody would be stopped before the fourth of five."""

_ALSO_CALLED: Mapping[str, str] = {
    "ASHAScheduler": "asha",
    "AsyncHyperBandScheduler": "asha",
    "MedianStoppingRule": "median",
    "FIFOScheduler": "none",
    "MedianPruner": "median",
    "PercentilePruner": "percentile",
    "HyperbandPruner": "hyperband",
    "SuccessiveHalvingPruner": "successive_halving",
    "PatientPruner": "patient",
    "ThresholdPruner": "threshold",
    "WilcoxonPruner": "wilcoxon",
    "NopPruner": "none",
}
"""Class names of Optuna and of Ray, which are understood as well."""


def scheduler_name(name: str) -> str:
    """The short name of a scheduler that was named by it or by its class.

    Raises:
        InputError: there is none of that name.
    """
    found = name if name in READS else _ALSO_CALLED.get(name)
    if found is None:
        raise InputError(f"scheduler: got {name!r}; {nearest(name, [*READS, *_ALSO_CALLED])}")
    return found


class SchedulerSpec(Closed):
    """Who stops a trial early. Budgets count epochs, steps or folds, as the trainer does.

    What is left out has its default; what the chosen scheduler does not read is a mistake.
    """

    name: str = Field("asha", description="who decides")
    grace: int | str | None = Field(None, description="no trial is stopped before this budget; auto: measured")
    eta: float | None = Field(None, gt=1, description="one in eta survives a rung; rungs at grace, grace * eta, ...")
    min_results: int | None = Field(None, ge=2, description="what a rung must hold before it stops anybody")
    promote: bool | None = Field(None, description="trials pause at a rung and go on when they are in its top 1/eta")
    n_startup_trials: int | None = Field(None, ge=0, description="complete before any is stopped")
    n_warmup_steps: int | None = Field(None, ge=0, description="no trial is stopped before this budget")
    interval_steps: int | None = Field(None, ge=1, description="budgets between two looks at a trial")
    n_min_trials: int | None = Field(None, ge=1, description="with a report at a budget, before any is stopped there")
    percentile: float | None = Field(None, ge=0, le=100, description="this share of the best goes on, in percent")
    patience: int | None = Field(None, ge=0, description="reports without a better one before a trial may be stopped")
    min_delta: float | None = Field(None, ge=0, description="what counts as better")
    lower: float | None = Field(None, allow_inf_nan=False, description="a report below it stops the trial")
    upper: float | None = Field(None, allow_inf_nan=False, description="a report above it stops the trial")
    p_threshold: float | None = Field(None, ge=0, le=1, description="of the test against the best trial's folds")
    n_startup_steps: int | None = Field(None, ge=0, description="folds before a trial may be stopped")
    watch: str | None = Field(None, description="a metric to read in place of the score, lower is better; or score")

    @field_validator("name")
    @classmethod
    def scheduler_is_known(cls, value: str) -> str:
        try:
            return scheduler_name(value)
        except InputError as error:
            raise ValueError(str(error).removeprefix("scheduler: ")) from None

    @field_validator("grace")
    @classmethod
    def grace_is_a_budget_or_auto(cls, value: int | str | None) -> int | str | None:
        if isinstance(value, str) and value != AUTO:
            raise ValueError(f"got {value!r}; must be auto or a whole number from 1")
        if isinstance(value, int) and value < 1:
            raise ValueError(f"got {value}; must be auto or a whole number from 1")
        return value

    @model_validator(mode="after")
    def only_what_is_read_is_set(self) -> SchedulerSpec:
        read = READS[self.name]
        for setting in DEFAULTS:
            if getattr(self, setting) is not None and setting not in read:
                reads = f"it reads {', '.join(read)}" if read else "it reads no settings"
                raise ValueError(f"got {setting}, which {self.name} does not read; {reads}")
        return self

    @model_validator(mode="after")
    def halving_is_by_whole_numbers(self) -> SchedulerSpec:
        if self.name not in ("hyperband", "successive_halving"):
            return self
        if self.eta is not None and (self.eta < 2 or self.eta != int(self.eta)):
            raise ValueError(f"got eta {self.eta:g}; {self.name} needs a whole number from 2")
        if self.grace == AUTO:
            raise ValueError(f"got grace auto; {self.name} needs a whole number from 1 (auto belongs to asha)")
        return self

    @model_validator(mode="after")
    def threshold_has_a_bound(self) -> SchedulerSpec:
        if self.name == "threshold" and self.lower is None and self.upper is None:
            raise ValueError("got neither lower nor upper; threshold needs at least one of them")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError(f"got lower {self.lower:g} above upper {self.upper:g}; must be the other way round")
        return self

    @model_validator(mode="after")
    def a_pausing_asha_has_fixed_rungs(self) -> SchedulerSpec:
        if self.promote and self.grace == AUTO:
            raise ValueError("got promote with grace auto; where trials pause, grace must be a whole number")
        if self.promote and self.min_results is not None:
            raise ValueError("got promote with min_results; a paused trial waits for its rung anyway")
        return self

    def settings(self, *, by_fold: bool = False) -> dict[str, Any]:
        """What the chosen scheduler reads: as it was said, else by default; `by_fold`: trials are cross-validated."""
        given = {name: getattr(self, name) for name in READS[self.name]}
        defaults = {**DEFAULTS, **(BY_FOLD if by_fold else {})}
        return {name: defaults[name] if value is None else value for name, value in given.items()}
