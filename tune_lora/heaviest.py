"""Which configuration of a space needs the most memory: a guess from names and values. Pure."""

from __future__ import annotations

import re
from typing import Any

from search_spaces.space import Space


def _words(pattern: str) -> re.Pattern[str]:
    """Finds a pattern as whole words of a parameter's name: ``eta`` is none of ``beta_dim``."""
    return re.compile(rf"(?<![a-z])(?:{pattern})(?![a-z])", re.IGNORECASE)


_LIGHTER_WHEN_MORE = _words("accumulation|dropout")
_LIGHTER_WHEN_ON = _words(r"checkpointing|offload|offloading|slicing|tiling|load_in_\d+bit|quanti[sz]e")
"""What trades time for memory."""
_NO_MATTER = _words("epochs?|steps|rate|lr|warmup|patience|seed|cycles|gamma|(?<!ema_)decay|lambda|eta")
_OPTIMIZERS = ("prodigy", "adam", "lion", "rmsprop", "sgd", "adafactor")
"""By the state that they keep for each weight, the most first; 8-bit ones come after all others."""
_KINDS = ("transformer", "cnn")
"""Of networks, the one with the most first."""
_NUMBER = re.compile(r"\d+")
_FORMAT = re.compile(r"(?:bf|b?float|fp|tf|u?int|nf)[-_]?(\d+)|(\d+)[-_]?bits?")
"""Names of number formats; what they count is bits."""
_IN_WORDS = {"half": 16, "full": 32, "single": 32, "double": 64}
_UNCHANGED = frozenset({"none", "no", "off", "false", "null", ""})
_UNCHANGED_BITS = 32


def heaviest(space: Space) -> dict[str, Any]:
    """A resolved configuration in which each parameter has the value that needs the most memory. It may break rules of
    the space, and so need more than any that is trained.

    Of numbers it is the largest (of accumulated batches and dropout the smallest), of names with numbers in them the
    one with the largest sum (``1024_512_256``, ``resnet50``), of optimizers the one with the most state, of number
    formats (``fp16``, ``int8``, ``nf4``) the widest, none at all above all of them. Gradient checkpointing and the like
    are off where they may be. What is about time alone (epochs, rates) is the smallest.
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
    widths = [_bits(value) for value in values]
    if None not in widths and any(_is_format(value) for value in values):
        return max(zip(widths, values, strict=True), key=lambda pair: pair[0] or 0)[1]
    if _LIGHTER_WHEN_ON.search(name):
        return min(values, key=lambda value: (_is_on(value), _size(value)))
    if _LIGHTER_WHEN_MORE.search(name) or (_NO_MATTER.search(name) and "batch" not in name):
        return min(values, key=_size)
    return max(values, key=_size)


def _state_of(optimizer: str) -> int:
    known = optimizer.lower()
    rank = next((len(_OPTIMIZERS) - place for place, one in enumerate(_OPTIMIZERS) if one in known), 0)
    return rank - (len(_OPTIMIZERS) if "8bit" in known else 0)


def _is_format(value: Any) -> bool:
    return isinstance(value, str) and (value.lower() in _IN_WORDS or _FORMAT.match(value.lower()) is not None)


def _is_on(value: Any) -> bool:
    return value != 0 and str(value).lower() not in _UNCHANGED


def _bits(value: Any) -> int | None:
    """Width of the numbers of a format; that of single precision where nothing is made smaller; None: no format."""
    text = str(value).lower()
    if text in _UNCHANGED:
        return _UNCHANGED_BITS
    if not _is_format(value):
        return None
    if text in _IN_WORDS:
        return _IN_WORDS[text]
    found = _FORMAT.match(text)
    return int(next(filter(None, found.groups()))) if found else None


def _size(value: Any) -> float:
    """Numbers by size, True above False, names by the numbers in them."""
    if isinstance(value, int | float):
        return float(value)
    kind = next((len(_KINDS) - place for place, one in enumerate(_KINDS) if one in str(value)), 0)
    return kind + float(sum(int(number) for number in _NUMBER.findall(str(value))))
