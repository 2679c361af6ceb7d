"""Makes docs/study_file.md from the models that read a study file: ``python -m scripts.study_reference``.

Names, types, limits and defaults are those of the code; what a setting is for stands in its description there.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from search_spaces.feasible import AUTO, SAMPLERS
from search_spaces.reading import shipped
from tune_lora.closed import models_in
from tune_lora.dataset_spec import LARGEST_SIDE
from tune_lora.objective_spec import TARGETS, WEIGHTS
from tune_lora.scheduler_spec import BY_FOLD, DEFAULTS, READS, SchedulerSpec
from tune_lora.spec import StudySpec

PAGE = Path(__file__).parent.parent / "docs" / "study_file.md"
HEAD = (Path(__file__).parent / "study_file_head.md").read_text("utf-8")

Model = type[BaseModel]
_WORDS: Mapping[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true, false", Any: "any value"}
_LIMITS: Mapping[str, str] = {
    "ge": " from {:g}",
    "gt": " above {:g}",
    "le": " to {:g}",
    "lt": ", below {:g}",
    "multiple_of": ", a multiple of {:g}",
}
_ALSO: Mapping[str, str] = {
    "name": "letters, digits, `.`, `_`, `-`",
    "space": ", ".join(f"`{name}`" for name in shipped()) + "; a file; a mapping",
    "dataset.resolution": f"multiple of 8 from 16 to {LARGEST_SIDE}, or a pair of them",
    "search.seed": "whole number from 0, below 2^32",
    "search.sampler": ", ".join(f"`{name}`" for name in (*SAMPLERS, AUTO)) + "; Optuna's class names",
    "scheduler.name": ", ".join(f"`{name}`" for name in READS) + "; class names of Optuna and Ray",
    "scheduler.grace": "`auto`, whole number from 1",
    "resources.gpu": "share up to 1, whole number, `auto`",
    "resources.memory": "number above 0, `auto`",
    "resources.concurrent": "whole number from 1, `auto`",
    "objective.weights": "numbers by name: " + ", ".join(f"`{name}`" for name in WEIGHTS),
    "objective.targets": "`reference`, `spec`, or numbers by name: " + ", ".join(f"`{name}`" for name in TARGETS),
}
"""What a validator allows where the type alone says too little."""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n{part}" for part in _parts())


def sections(model: Model = StudySpec, place: str = "") -> Iterator[tuple[str, Model]]:
    """Every part of a study file, by its place: the file itself first, then in the order of the settings."""
    yield place, model
    for name, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            yield from sections(inner, f"{place}.{name}".lstrip("."))


def _parts() -> Iterator[str]:
    """One heading and table a model; where it stands at several places, all are named."""
    places: dict[Model, list[str]] = {}
    for place, model in sections():
        places.setdefault(model, []).append(place)
    for model, found in places.items():
        yield _part(model, [place for place in found if not _is_within(place, places, model)])


def _is_within(place: str, places: Mapping[Model, list[str]], model: Model) -> bool:
    """Whether its parent is shown elsewhere: the SMILES of the second table are those of the first."""
    parent = place.rpartition(".")[0]
    return any(parent in found[1:] for other, found in places.items() if other is not model)


def _part(model: Model, places: list[str]) -> str:
    place = places[0]
    title = ", ".join(f"`{one}`" for one in places) if place else "The file"
    level = "##" if "." not in place else "###"
    rows = [_row(name, field, f"{place}.{name}".lstrip("."), model) for name, field in model.model_fields.items()]
    heads = ["| setting | is | default | |", "|---|---|---|---|"]
    return "\n".join([f"{level} {title}", "", _told(model), "", *heads, *rows, ""])


def _anchor(place: str) -> str:
    """The heading's own, as GitHub makes it; a place that shares its heading with another one has the first's."""
    shown = {"transfer.stage1": "transferstage1-transferstage2", "transfer.stage2": "transferstage1-transferstage2"}
    shared = re.sub(r"^transfer\.stage2\.", "transfer.stage1.", place)
    return shown.get(place, shared.replace(".", ""))


def _told(model: Model) -> str:
    """The docstring's text as one paragraph."""
    return " ".join((model.__doc__ or "").replace("``", "`").split())


def _row(name: str, field: FieldInfo, place: str, model: Model) -> str:
    inner = list(models_in(field.annotation))
    allowed = _ALSO.get(place) or _allowed(field)
    if inner:
        allowed = allowed.replace("section", f"[section](#{_anchor(place)})")
    told = field.description or (_told(inner[0]).partition(". ")[0].rstrip(".") if inner else "")
    if model is SchedulerSpec and name in DEFAULTS:
        told += f" ({', '.join(reader for reader, read in READS.items() if name in read)})"
    cells = [f"`{name}`", allowed, _default(name, field, model), told]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _allowed(field: FieldInfo) -> str:
    """The type and its limits."""
    known = [(text, getattr(one, key, None)) for one in field.metadata for key, text in _LIMITS.items()]
    return _type(field.annotation) + "".join(text.format(limit) for text, limit in known if limit is not None)


def _type(annotation: Any) -> str:
    """The type in words, without the null that says that it may be left out."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return ", ".join(_type(one) for one in inner if one is not type(None))
    if origin is tuple:
        return f"list: {_type(inner[0])}" if inner[-1] is Ellipsis else "[" + ", ".join(map(_type, inner)) + "]"
    if origin is dict:
        return f"mapping: {_type(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return _WORDS[annotation]


def _default(name: str, field: FieldInfo, model: Model) -> str:
    if model is SchedulerSpec and name in DEFAULTS:
        return f"{_value(DEFAULTS[name])}" + (f"; in folds {_value(BY_FOLD[name])}" if name in BY_FOLD else "")
    if field.is_required():
        return "**must be given**"
    default = field.get_default(call_default_factory=True)
    is_section = isinstance(default, BaseModel) or (default is None and bool(list(models_in(field.annotation))))
    return "" if is_section or default in ((), {}) else _value(default)


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return f"`{str(value).lower().replace('none', 'null')}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(map(str, value)) + "]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`" if value != "" else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
