"""The domains of a study's hyperparameters, from what its record says of its space."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from search_spaces.domains import Categorical, Domain, LogUniform, Uniform
from search_spaces.space import Space
from tune_lora.errors import InputError
from tune_lora.records import StudyRecord

FEW_VALUES = 6
"""Of numbers without a known range: up to so many different ones are taken for choices."""
LOGARITHMIC = 10.0
"""Of numbers without a known range: from this ratio of the largest to the smallest they are laid out in logarithms."""

_RATE = re.compile(r"(^|\.)(rate|lr|lr_(pretrain|backbone|new)|([a-z]+_)*learning_rate)$")


def space_of(record: StudyRecord) -> Space | None:
    """The space that a study searched, or None where its record names none or its file is gone. Fixed values of the
    study are not in it: they were never sampled."""
    described = record.spec.get("space")
    return _space(json.dumps(described), record.spec.get("preset")) if described else None


@functools.lru_cache(maxsize=8)  # each of several findings and tables asks for it
def _space(described: str, preset: str | None) -> Space | None:
    try:
        space = Space.load(json.loads(described))
        return space.preset(preset) if preset else space
    except InputError:
        return None


def domains_of(record: StudyRecord) -> tuple[dict[str, Domain], frozenset[str]]:
    """The domain of each sampled hyperparameter, and the names whose range is the study's own. For others (the space's
    file is gone) the domain holds what was tried, and says nothing of what was not."""
    space = space_of(record)
    known = {name: one.domain for name, one in space.parameters.items()} if space else {}
    found: dict[str, Domain] = {}
    own: set[str] = set()
    for name in record.parameter_names:
        values = [trial.params[name] for trial in record.trials if name in trial.params]
        domain = known.get(name)
        if domain is not None and all(map(domain.contains, values)):
            found[name], own = domain, own | {name}
        else:
            found[name] = _tried(values)
    return found, frozenset(own)


def _tried(values: Sequence[Any]) -> Domain:
    different = list(dict.fromkeys(values))
    if not all(map(is_number, different)):
        return Categorical(tuple(different))
    if len(different) <= FEW_VALUES:
        return Categorical(tuple(sorted(different)))
    low, high = float(min(different)), float(max(different))
    return LogUniform(low, high) if low > 0 and high / low >= LOGARITHMIC else Uniform(low, high)


def is_number(value: Any) -> bool:
    """Whether a value is a number; truth values are none to a person."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def ordered(choices: Iterable[Any]) -> list[Any]:
    """Choices that are numbers in their order, else none."""
    known = list(choices)
    return sorted(known) if known and all(map(is_number, known)) else []


def is_rate(name: str) -> bool:
    """Whether a hyperparameter is a learning rate of what is trained, by its name; a text encoder's is another."""
    return bool(_RATE.search(name)) and "text" not in name
