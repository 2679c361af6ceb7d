"""Dataset files of kohya's sd-scripts: ``[general]``, ``[[datasets]]`` and ``[[datasets.subsets]]``, the inner setting
winning over the outer; and kohya's folders named after their repeats."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.lora.dataset_settings import NAMES
from trainables.lora.image_folder import METADATA
from trainables.lora.pictures import IMAGE_SUFFIXES
from tune_lora.errors import InputError, nearest

_OURS = {
    "num_repeats": "repeats",
    "flip_aug": "flip",
    "caption_dropout_rate": "caption_dropout",
    "caption_tag_dropout_rate": "caption_tag_dropout",
}
"""Our names of kohya's settings, where they differ."""
_SUBSET = {
    "num_repeats", "flip_aug", "shuffle_caption", "keep_tokens", "caption_separator", "caption_dropout_rate",
    "caption_tag_dropout_rate", "caption_extension", "caption_prefix", "caption_suffix", "class_tokens",
}  # fmt: skip
_DATASET = {
    "resolution", "batch_size", "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps",
    "bucket_no_upscale",
}  # fmt: skip
SETTINGS = frozenset(_DATASET | _SUBSET)
"""Settings of kohya's that are acted on."""
_WITHOUT_EFFECT: Mapping[str, Sequence[Any]] = {
    "color_aug": (False,),
    "random_crop": (False,),
    "is_reg": (False,),
    "alpha_mask": (False,),
    "enable_wildcard": (False,),
    "caption_dropout_every_n_epochs": (0,),
    "token_warmup_min": (0, 1),
    "token_warmup_step": (0,),
    "keep_tokens_separator": ("",),
    "secondary_separator": ("",),
    "validation_split": (0, 0.0),
}
"""Settings of kohya's that nothing here acts on, with the values that ask for nothing."""
_IGNORED = {"cache_info", "skip_image_resolution", "network_multiplier", "validation_seed"}
"""Settings of kohya's that change nothing here."""


@dataclass(frozen=True)
class Subset:
    """Images of one folder and the settings chosen for them, under our names and unchecked; `source` says where.

    A dataset without subsets is one without a folder.
    """

    folder: Path | None
    chosen: Mapping[str, Any]
    source: str


def read_toml(path: Path, mistakes: list[str]) -> list[Subset]:
    """All subsets of all datasets of a file.

    Raises:
        InputError: it is not TOML, or its tables are none.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, brackets in brackets
        raise InputError(f"{path}: is not TOML ({error})") from None
    _check_keys(path, "top level", document, {"general", "datasets"}, mistakes)
    general = document.get("general", {})
    _check_keys(path, "[general]", general, SETTINGS, mistakes)
    datasets = document.get("datasets", [])
    if not isinstance(datasets, list) or not datasets:
        got = "none" if isinstance(datasets, list) else repr(datasets)
        raise InputError(f"{path}: datasets is {got}; must be one or more tables, [[datasets]]")
    return [subset for dataset in datasets for subset in _subsets(path, general, dataset, mistakes)]


def numbered_subsets(folder: Path) -> list[Subset]:
    """Folders such as ``10_bobo`` in a folder without images: the repeats, and the caption of images without one."""
    if (folder / METADATA).is_file() or any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir()):
        return []
    names = [(path, re.fullmatch(r"(\d+)_(.*)", path.name)) for path in sorted(folder.iterdir()) if path.is_dir()]
    return [
        Subset(path, {"repeats": int(name[1])} | ({"class_tokens": name[2]} if name[2] else {}), str(path))
        for path, name in names
        if name is not None
    ]


def _subsets(path: Path, general: Mapping[str, Any], dataset: Any, mistakes: list[str]) -> list[Subset]:
    _check_keys(path, "[[datasets]]", dataset, SETTINGS | {"subsets"}, mistakes)
    subsets = dataset.get("subsets", [])
    if not isinstance(subsets, list):
        raise InputError(f"{path}: subsets is {subsets!r}; must be tables, [[datasets.subsets]]")
    outer = {**general, **{name: value for name, value in dataset.items() if name != "subsets"}}
    if not subsets:
        return [Subset(None, _renamed(outer), str(path))]
    return [_subset(path, outer, subset, mistakes) for subset in subsets]


def _subset(path: Path, outer: Mapping[str, Any], subset: Any, mistakes: list[str]) -> Subset:
    _check_keys(path, "[[datasets.subsets]]", subset, _SUBSET | {"image_dir"}, mistakes)
    folder = path.parent / str(subset.get("image_dir", ""))
    if "image_dir" in subset and folder.is_dir():
        return Subset(folder, _renamed({**outer, **subset}), str(path))
    mistakes.append(f"{path}: image_dir {subset.get('image_dir')!r} is not a folder beside this file")
    return Subset(None, _renamed({**outer, **subset}), str(path))


def _renamed(chosen: Mapping[str, Any]) -> dict[str, Any]:
    named = {_OURS.get(name, name): value for name, value in chosen.items()}
    return {name: value for name, value in named.items() if name in NAMES}


def _check_keys(path: Path, place: str, got: Any, known: Set[str], mistakes: list[str]) -> None:
    if not isinstance(got, dict):
        raise InputError(f"{path}: {place} is {type(got).__name__}; must be a table")
    for key, value in got.items():
        if key in known or key in _IGNORED:
            continue
        if key not in _WITHOUT_EFFECT:
            mistakes.append(f"{path}: {place}: unknown key {key!r}; {nearest(key, known)}")
        elif value not in _WITHOUT_EFFECT[key]:
            mistakes.append(f"{path}: {place}: {key} = {value!r} is not supported; must be left out")
