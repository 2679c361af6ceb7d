"""The dotted places of a study file, such as ``search.seed``: which there are, and how a value is put there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from tune_lora.errors import InputError

FIXED = "fixed"
"""The section whose names are those of settings, dots included."""


def places_of(model: type[BaseModel], stem: str = "") -> tuple[frozenset[str], frozenset[str]]:
    """The dotted places of a section and those among them that hold names of the user's own."""
    places, open_places = set[str](), set[str]()
    for name, field in model.model_fields.items():
        place = f"{stem}{name}"
        places.add(place)
        inner, is_open = _inner(field.annotation)
        if is_open:
            open_places.add(place)
        if inner is not None:
            below, open_below = places_of(inner, f"{place}.")
            places |= below
            open_places |= open_below
    return frozenset(places), frozenset(open_places)


def _inner(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section that an annotation names outside of lists, and whether it may be a mapping by any names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    origin = getattr(annotation, "__origin__", None)
    if origin in (dict, Mapping) or annotation is dict:
        return None, True
    if origin in (list, tuple):
        return None, False
    found = [_inner(part) for part in get_args(annotation) if part is not annotation]
    return next((model for model, _ in found if model is not None), None), any(is_open for _, is_open in found)


def put(document: dict[str, Any], place: str, value: Any) -> None:
    """Writes a value at a dotted place. Below a mapping by the user's own names a dot is part of the name."""
    first, dot, rest = place.partition(".")
    if not dot:
        document[first] = value
        return
    if first == FIXED:
        document[first] = {**(document.get(first) or {}), rest: value}
        return
    inner = document.get(first)
    if inner is not None and not isinstance(inner, dict):
        raise InputError(f"{place}: {first} is {inner!r} here, which holds nothing; set {first} as a whole")
    document[first] = inner or {}
    put(document[first], rest, value)
