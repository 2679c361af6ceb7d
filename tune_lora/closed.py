"""What every section of a study file has in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Closed(BaseModel):
    """A section: unknown keys are refused, values never change, and ``yes`` is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def yes_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML has true and false under many names (``on``, ``no``), and Python counts them as 1 and 0."""
        if not isinstance(value, bool) or info.field_name is None:
            return value
        kinds = set(types_in(cls.model_fields[info.field_name].annotation))
        if kinds & {int, float} and bool not in kinds:
            raise ValueError(f"got {value!r}; must be a number")
        return value


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that an annotation names, at any depth."""
    return (one for one in types_in(annotation) if issubclass(one, BaseModel))


def types_in(annotation: Any) -> Iterator[type]:
    """The classes that an annotation names, at any depth: of ``tuple[X, ...] | None`` X."""
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from types_in(part)
