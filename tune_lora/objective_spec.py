"""The `objective` section of a study file: what is best, by one metric or by several."""

from __future__ import annotations

import math
from typing import Any

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from trainables.preference import FEATURES, Preference, Term
from tune_lora.closed import Closed
from tune_lora.errors import nearest
from tune_lora.records import CLOCK, Direction, Objective

WEIGHTS = ("style", "lpips", "clip", "identity", "failures", "preference")
TARGETS = ("brightness", "contrast", "diversity", "clip", "saturation")


class MetricSpec(Closed):
    """One of several objectives."""

    name: str = Field(description="as trials report it")
    direction: Direction = Field("minimize", description="which way is better")


class TermSpec(Closed):
    """How one metric counts in a preference: `weight` a `scale` away from `mean`, from `low` to `high`."""

    weight: float = Field(allow_inf_nan=False, description="how much one scale of it is worth")
    mean: float = Field(allow_inf_nan=False, description="of the judged trials")
    scale: float = Field(gt=0, allow_inf_nan=False, description="standard deviation over the judged trials")
    low: float = Field(allow_inf_nan=False, description="least that was judged; below, it counts as this")
    high: float = Field(allow_inf_nan=False, description="most that was judged; above, it counts as this")


class PreferenceSpec(Closed):
    """What people like, by metric, as `tune-lora rate --learn` writes it. `learnt_from` says from what and how well."""

    metrics: dict[str, TermSpec] = Field(description="how each metric counts, by name")
    learnt_from: str = Field("", description="from what, and how well, in words")

    @field_validator("metrics")
    @classmethod
    def metrics_are_measured(cls, value: dict[str, TermSpec]) -> dict[str, TermSpec]:
        if not value:
            raise ValueError(f"got none; must be some of {', '.join(FEATURES)}")
        for name in value:
            if name not in FEATURES:
                raise ValueError(f"unknown metric {name!r}; {nearest(name, FEATURES)}")
        return value

    def learnt(self) -> Preference:
        """What evaluates pictures by it."""
        return Preference({name: Term(**term.model_dump()) for name, term in self.metrics.items()})


class ObjectiveSpec(Closed):
    """What is best: one `metric`, or several `metrics`, of which schedulers look at `prune_on`. `weights` are those of
    the score; `targets` is ``reference``, ``spec``, or numbers by name; `preference` is what people like."""

    metric: str = Field(
        "score", description="what is optimised; where the file says nothing, llm_lora has val_loss, classifier val_acc"
    )
    direction: Direction = Field(
        "minimize", description="which way is better; of val_acc, if it is not named, maximize"
    )
    metrics: tuple[MetricSpec, ...] | None = Field(None, description="two or more; a name alone is minimized")
    prune_on: str | None = Field(
        None, description="one of the metrics; null: the first that trials report on their way"
    )
    weights: dict[str, float] = Field(
        default_factory=dict, description="of the score's terms, by name; those that are left out keep their defaults"
    )
    targets: str | dict[str, float] | None = Field(
        None,
        description="of the score: reference (as the training images measure), spec (the numbers of docs/scoring.md), "
        "or numbers by name; null: spec with weights of AlexNet and ViT-B/32, else reference",
    )
    preference: PreferenceSpec | None = Field(None, description="of image LoRAs; `tune-lora rate --learn` writes it")

    @field_validator("metrics", mode="before")
    @classmethod
    def a_name_alone_is_minimized(cls, value: Any) -> Any:
        if value is None:
            return value
        if not isinstance(value, list | tuple):
            # pydantic collects ValueErrors only
            raise ValueError(f"got {value!r}; must be a list of metrics")  # noqa: TRY004
        return [{"name": entry} if isinstance(entry, str) else entry for entry in value]

    @field_validator("metrics")
    @classmethod
    def metrics_are_several_and_differ(cls, value: tuple[MetricSpec, ...] | None) -> tuple[MetricSpec, ...] | None:
        if value is None:
            return value
        names = [one.name for one in value]
        if len(names) < 2:
            raise ValueError(f"got {len(names)}; must be two or more (one objective: metric and direction)")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"got {twice!r} twice; must be different metrics")
        return value

    @model_validator(mode="after")
    def one_or_several(self) -> ObjectiveSpec:
        if self.metrics is None:
            if self.prune_on is not None:
                raise ValueError("got prune_on without metrics; must be left out where there is one objective")
            return self
        if given := [name for name in ("metric", "direction") if name in self.model_fields_set]:
            raise ValueError(f"got metrics and {given[0]}; must be one of the two forms")
        return self

    @model_validator(mode="after")
    def trials_are_pruned_on_what_they_report(self) -> ObjectiveSpec:
        if self.metrics is None:
            return self
        reported = [one.name for one in self.metrics if one.name not in CLOCK]
        if not reported:
            raise ValueError(f"got only metrics of the clock ({', '.join(CLOCK)}); must have one that trials report")
        if self.prune_on is not None and self.prune_on not in reported:
            hint = nearest(self.prune_on, reported)
            raise ValueError(
                f"prune_on: got {self.prune_on!r}; must be a metric that trials report on their way; {hint}"
            )
        return self

    @model_validator(mode="after")
    def a_preference_that_counts_is_known(self) -> ObjectiveSpec:
        if self.weights.get("preference") and self.preference is None:
            raise ValueError(
                "weights.preference: got a weight without objective.preference; must have what was learnt "
                "(`tune-lora rate RESULTS --learn STUDY` writes both)"
            )
        return self

    @model_serializer(mode="wrap")
    def one_form_at_a_time(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the form that was not chosen, so that it reads back to the same."""
        dumped: dict[str, Any] = plain(self)
        return dumped if self.metrics is None else {k: v for k, v in dumped.items() if k not in ("metric", "direction")}

    @property
    def several(self) -> tuple[Objective, ...]:
        """The objectives where there are several; empty where there is one."""
        return tuple(Objective(one.name, one.direction) for one in self.metrics or ())

    @property
    def pruned_on(self) -> Objective:
        """What schedulers look at: the one objective, or the chosen one of several."""
        if not self.several:
            return Objective(self.metric, self.direction)
        chosen = self.prune_on or next(one.name for one in self.several if one.name not in CLOCK)
        return next(one for one in self.several if one.name == chosen)

    @field_validator("weights")
    @classmethod
    def weights_are_known_and_not_negative(cls, value: dict[str, float]) -> dict[str, float]:
        for name, weight in value.items():
            if name not in WEIGHTS:
                raise ValueError(f"unknown weight {name!r}; {nearest(name, WEIGHTS)}")
            if not 0 <= weight < math.inf:
                raise ValueError(f"weight {name} is {weight}; must be 0 or more, and finite")
        return value

    @field_validator("targets")
    @classmethod
    def targets_are_known(cls, value: str | dict[str, float] | None) -> str | dict[str, float] | None:
        if isinstance(value, str) and value not in ("reference", "spec"):
            raise ValueError(f"got {value!r}; must be reference, spec, or numbers by name")
        for name, number in value.items() if isinstance(value, dict) else ():
            if name not in TARGETS:
                raise ValueError(f"unknown target {name!r}; {nearest(name, TARGETS)}")
            if not -1 <= number <= 1:
                raise ValueError(f"target {name} is {number}; must be a number from -1 to 1")
        return value
