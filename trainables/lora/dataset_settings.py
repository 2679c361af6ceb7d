"""How images are shown, and what each such setting may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DatasetSettings:
    """How the images are shown. `resolution` in pixels (square), `batch_size` in images."""

    resolution: int = 64
    batch_size: int = 4
    repeats: int = 1
    caption_extension: str = ".txt"
    shuffle_caption: bool = False
    keep_tokens: int = 0
    caption_dropout: float = 0.0
    flip: bool = False


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_extension(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\.[^./\\\0]+", value) is not None


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


_Rule = tuple[Callable[[Any], bool], str]
_COUNT: _Rule = (lambda value: _is_whole(value, 1), "a whole number from 1")
_EXTENSION: _Rule = (_is_extension, "a dot and letters, such as .txt")
_RULES: Mapping[str, _Rule] = {
    "resolution": (lambda value: _is_whole(value, 16) and value % 8 == 0, "a multiple of 8 from 16"),
    "batch_size": _COUNT,
    "repeats": _COUNT,
    "caption_extension": _EXTENSION,
    "shuffle_caption": (_is_truth, "true or false"),
    "keep_tokens": (lambda value: _is_whole(value, 0), "a whole number from 0"),
    "caption_dropout": (_is_share, "a share from 0 to 1"),
    "flip": (_is_truth, "true or false"),
}

NAMES = frozenset(_RULES)
"""What `DatasetSettings` has."""


def settings_of(chosen: Mapping[str, Any], source: str, mistakes: list[str]) -> DatasetSettings:
    """The settings that were chosen (names of `NAMES`); a wrong one goes to `mistakes` and stands as its default."""
    right = {}
    for name, value in chosen.items():
        is_right, wanted = _RULES[name]
        if is_right(value):
            right[name] = value
        else:
            mistakes.append(f"{source}: {name} is {value!r}; must be {wanted}")
    return DatasetSettings(**right)
