"""How images are shown, and what each such setting may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainables.lora.buckets import LARGEST, SMALLEST, Buckets, Size

LARGEST_SIDE, LARGEST_BUCKET = 2048, 8192
"""Pixels of the longest side of a resolution, and of a bucket: a slip of the pen is not taken for either."""


@dataclass(frozen=True)
class Showing:
    """How one image is shown: each subset of a dataset has its own."""

    repeats: int = 1
    flip: bool = False
    shuffle_caption: bool = False
    keep_tokens: int = 0
    caption_separator: str = ","
    caption_dropout: float = 0.0
    caption_tag_dropout: float = 0.0


@dataclass(frozen=True)
class Captions:
    """Where captions come from, and what is put around them. `class_tokens` stand where an image has no caption."""

    caption_extension: str = ".txt"
    caption_prefix: str = ""
    caption_suffix: str = ""
    class_tokens: str | None = None


@dataclass(frozen=True)
class DatasetSettings:
    """What holds for a dataset as a whole: `resolution` is width and height in pixels, `batch_size` in images."""

    resolution: Size = (64, 64)
    batch_size: int = 4


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_side(value: Any, most: int = LARGEST_BUCKET) -> bool:
    return _is_whole(value, 16) and value <= most and value % 8 == 0


def _is_resolution(value: Any) -> bool:
    sides = value if isinstance(value, list | tuple) and len(value) == 2 else [value]
    return all(_is_side(side, LARGEST_SIDE) for side in sides)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_extension(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\.[^./\\\0]+", value) is not None


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_Rule = tuple[Callable[[Any], bool], str]
_COUNT: _Rule = (lambda value: _is_whole(value, 1), "a whole number from 1")
_TRUTH: _Rule = (_is_truth, "true or false")
_SHARE: _Rule = (_is_share, "a share from 0 to 1")
_SIDE: _Rule = (_is_side, f"a multiple of 8 from 16 to {LARGEST_BUCKET}")
_TEXT: _Rule = (_is_text, "a text")
_RULES: Mapping[str, _Rule] = {
    "resolution": (_is_resolution, f"a multiple of 8 from 16 to {LARGEST_SIDE}, or a pair of them, [width, height]"),
    "batch_size": _COUNT,
    "enable_bucket": _TRUTH,
    "min_bucket_reso": _SIDE,
    "max_bucket_reso": _SIDE,
    "bucket_reso_steps": (lambda value: _is_whole(value, 8) and value % 8 == 0, "a multiple of 8"),
    "bucket_no_upscale": _TRUTH,
    "repeats": _COUNT,
    "flip": _TRUTH,
    "shuffle_caption": _TRUTH,
    "keep_tokens": (lambda value: _is_whole(value, 0), "a whole number from 0"),
    "caption_separator": (lambda value: _is_text(value) and bool(value.strip()), "a text, such as ','"),
    "caption_dropout": _SHARE,
    "caption_tag_dropout": _SHARE,
    "caption_extension": (_is_extension, "a dot and letters, such as .txt"),
    "caption_prefix": _TEXT,
    "caption_suffix": _TEXT,
    "class_tokens": _TEXT,
}

NAMES = frozenset(_RULES)
"""All settings of a dataset, under our names."""


@dataclass(frozen=True)
class Settings:
    """The settings of one subset, each known to be right."""

    values: Mapping[str, Any]

    @property
    def resolution(self) -> Size:
        """Width and height; a single number is a square."""
        value = self.values.get("resolution", DatasetSettings.resolution)
        return (value, value) if isinstance(value, int) else (value[0], value[1])

    @property
    def batch_size(self) -> int:
        """Images a step."""
        return int(self.values.get("batch_size", DatasetSettings.batch_size))

    @property
    def showing(self) -> Showing:
        """How the subset's images are shown."""
        return Showing(**self._of(Showing))

    @property
    def captions(self) -> Captions:
        """Where the subset's captions come from."""
        return Captions(**self._of(Captions))

    @property
    def buckets(self) -> Buckets | None:
        """The aspect buckets; None where every image is cut to the resolution."""
        if not self.values.get("enable_bucket"):
            return None
        step = self.values.get("bucket_reso_steps", 64)
        shorter, longer = sorted(self.resolution)
        least = min(SMALLEST, max(step, shorter // 2 // step * step), shorter)
        return Buckets(
            self.resolution,
            self.values.get("min_bucket_reso", least),
            self.values.get("max_bucket_reso", max(LARGEST, longer)),
            step,
            self.values.get("bucket_no_upscale", False),
        )

    def _of(self, kind: type[Showing | Captions]) -> dict[str, Any]:
        return {name: value for name, value in self.values.items() if name in kind.__dataclass_fields__}


def settings_of(chosen: Mapping[str, Any], source: str, mistakes: list[str]) -> Settings:
    """The settings that were chosen (names of `NAMES`); a wrong one goes to `mistakes` and stands as its default."""
    right = {}
    for name, value in chosen.items():
        is_right, wanted = _RULES[name]
        if is_right(value):
            right[name] = value
        else:
            mistakes.append(f"{source}: {name} is {value!r}; must be {wanted}")
    found = Settings(right)
    unfit = [f"{source}: {mistake}" for mistake in _unfit_buckets(found)]
    mistakes.extend(unfit)
    return Settings({**right, "enable_bucket": False}) if unfit else found


def _unfit_buckets(settings: Settings) -> Iterator[str]:
    buckets = settings.buckets
    if buckets is None or buckets.no_upscale:
        return
    shorter, longer = sorted(settings.resolution)
    if buckets.least > shorter:
        yield f"min_bucket_reso is {buckets.least}; must be at most the resolution, {shorter}"
    if buckets.most < longer:
        yield f"max_bucket_reso is {buckets.most}; must be at least the resolution, {longer}"
    if not buckets.sizes():
        yield f"bucket_reso_steps is {buckets.step}; must be at most the resolution, {shorter}"
