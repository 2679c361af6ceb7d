"""Which configuration of a space needs the most memory: a guess from names and values. Pure."""

from __future__ import annotations

import re
from typing import Any

from search_spaces.space import Space

_LIGHTER_WHEN_MORE = re.compile(r"accumulation|dropout")
_NO_MATTER = re.compile(r"epochs|steps|rate|(^|[._])lr($|[._])|warmup|patience|seed|cycles|gamma|decay|lambda|eta")
_OPTIMIZERS = ("prodigy", "adam", "lion", "rmsprop", "sgd", "adafactor")
"""By the state that they keep for each weight, the most first; 8-bit ones come after all others."""
_KINDS = ("transformer", "cnn")
"""Of networks, the one with the most first."""
_NUMBER = re.compile(r"\d+")


def heaviest(space: Space) -> dict[str, Any]:
    """A resolved configuration in which each parameter has the value that needs the most memory. It may break rules of
    the space, and so need more than any that is trained.

    Of numbers it is the largest (of accumulated batches and dropout the smallest), of names with numbers in them the
    one with the largest sum (``1024_512_256``, ``resnet50``), of optimizers the one with the most state. What is about
    time alone (epochs, rates) is the smallest.
    """
    chosen: dict[str, Any] = {}
    for name in space.order:
        if space.exists(name, space.resolve(chosen)):
            chosen[name] = _most(name, space.parameters[name].domain.points())
    return space.resolve(chosen)


def _most(name: str, values: tuple[Any, ...]) -> Any:
    """The value of a parameter that needs the most."""
    if "optim" in name and all(isinstance(value, str) for value in values):
        return max(values, key=_state_of)
    if _LIGHTER_WHEN_MORE.search(name) or (_NO_MATTER.search(name) and "batch" not in name):
        return min(values, key=_size)
    return max(values, key=_size)


def _state_of(optimizer: str) -> int:
    known = optimizer.lower()
    rank = next((len(_OPTIMIZERS) - place for place, one in enumerate(_OPTIMIZERS) if one in known), 0)
    return rank - (len(_OPTIMIZERS) if "8bit" in known else 0)


def _size(value: Any) -> float:
    """Numbers by size, True above False, names by the numbers in them."""
    if isinstance(value, int | float):
        return float(value)
    kind = next((len(_KINDS) - place for place, one in enumerate(_KINDS) if one in str(value)), 0)
    return kind + float(sum(int(number) for number in _NUMBER.findall(str(value))))
