"""Who suggests the next configuration, and what is known before the first, as a study file says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from search_spaces.feasible import sampler_name
from tune_lora.closed import Closed
from tune_lora.errors import InputError


class WarmStartSpec(Closed):
    """An earlier study to learn from. `study` is its results folder, its study.db, or an Optuna storage URL (with
    `name`). `map` computes parameters of this space from the earlier trial's values."""

    study: str = Field(description="a results folder, its study.db, or a storage URL")
    name: str | None = Field(None, description="of the study, where a storage holds several")
    map: dict[str, str] = Field(default_factory=dict, description="{network_alpha_ratio: network_alpha / network_dim}")
    top: int | None = Field(None, ge=1, description="only the best; null: all observations, the 5 best priors")
    use: Literal["priors", "observations"] = Field(
        "observations", description="what its trials are here: told to the sampler, or the best of them trained again"
    )
    values: Literal["ranks", "as_is"] | None = Field(
        None, description="null: as_is where scores mean the same, else as quantiles of this study's results"
    )

    @field_validator("map", mode="before")
    @classmethod
    def a_constant_is_an_expression(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            # pydantic collects ValueErrors only
            raise ValueError(f"got {value!r}; must be a mapping from parameters to expressions")  # noqa: TRY004
        return {str(name): text if isinstance(text, str) else repr(text) for name, text in value.items()}


class SearchSpec(Closed):
    """Who suggests the next configuration, and what is known before the first."""

    sampler: str = Field("tpe", description="who suggests; auto: predictive, or tpe where that cannot be")
    n_startup_trials: int = Field(10, ge=0, description="drawn at random before the sampler learns")
    seed: int = Field(42, ge=0, lt=2**32, description="of the sampler and the trials")
    priors: bool | tuple[str, ...] | None = Field(
        None, description="run the space's reference configurations first, or those named; null: one called baseline"
    )
    start_with: str | tuple[dict[str, Any], ...] | None = Field(
        None, description="configurations to run first: a list, or a CSV, YAML or JSON file of them"
    )
    observations: str | tuple[dict[str, Any], ...] | None = Field(
        None, description="past trials with their `value`: a list, or a CSV, YAML or JSON file of them"
    )
    warm_start: tuple[WarmStartSpec, ...] = Field((), description="earlier studies to learn from")
    guard: bool = Field(True, description="let go of past results that mislead")

    @field_validator("priors", mode="before")
    @classmethod
    def priors_are_all_none_or_named(cls, value: Any) -> Any:
        if (
            value is None
            or isinstance(value, bool)
            or (_is_list(value) and all(isinstance(name, str) for name in value))
        ):
            return value
        raise ValueError(f"got {value!r}; must be true, false, or a list of names")

    @field_validator("start_with", "observations", mode="before")
    @classmethod
    def configurations_are_a_file_or_a_list(cls, value: Any) -> Any:
        if value is None or isinstance(value, str) or (_is_list(value) and all(isinstance(x, Mapping) for x in value)):
            return value
        raise ValueError(f"got {value!r}; must be the path of a CSV, YAML or JSON file, or a list of mappings")

    @field_validator("warm_start", mode="before")
    @classmethod
    def one_earlier_study_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, Mapping) else value

    @field_validator("sampler")
    @classmethod
    def sampler_is_known(cls, value: str) -> str:
        try:
            return sampler_name(value)
        except InputError as error:
            raise ValueError(str(error).removeprefix("sampler: ")) from None

    def with_paths(self, found: Callable[[str], str]) -> SearchSpec:
        """The same with each path as `found` has it."""
        given = {name: getattr(self, name) for name in ("start_with", "observations")}
        files = {name: found(path) for name, path in given.items() if isinstance(path, str)}
        earlier = tuple(
            one if "://" in one.study else one.model_copy(update={"study": found(one.study)}) for one in self.warm_start
        )
        return self.model_copy(update={**files, "warm_start": earlier})


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)
