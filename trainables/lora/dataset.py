"""Captioned images on disk: a plain folder, an image-folder ``metadata.jsonl``, or a kohya dataset TOML. Loads no
torch."""

from __future__ import annotations

import hashlib
import json
import random
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from trainables.lora.dataset_settings import NAMES, DatasetSettings, settings_of
from tune_lora.errors import InputError, InputErrors, nearest

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_TOML_GENERAL = {"shuffle_caption", "caption_extension", "keep_tokens", "flip_aug", "caption_dropout_rate"}
_TOML_DATASET = _TOML_GENERAL | {"resolution", "batch_size", "enable_bucket", "subsets", "num_repeats"}
_TOML_SUBSET = _TOML_GENERAL | {"image_dir", "num_repeats"}


@dataclass(frozen=True)
class CaptionedImage:
    """One image file with its caption and how often an epoch shows it."""

    path: Path
    caption: str
    repeats: int = 1

    def digest(self) -> str:
        """SHA-256 of the file's bytes: what caches are keyed by."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Dataset:
    """Training images and the held-out ones, which serve validation loss and identity."""

    train: tuple[CaptionedImage, ...]
    held_out: tuple[CaptionedImage, ...]
    settings: DatasetSettings
    name: str = ""

    @property
    def samples_per_epoch(self) -> int:
        """Images shown in one epoch, repeats counted."""
        return sum(image.repeats for image in self.train)


@dataclass
class _Found:
    images: list[CaptionedImage] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


def load(
    path: Path, settings: Mapping[str, Any] | None = None, *, held_out_share: float = 0.125, seed: int = 0
) -> Dataset:
    """Reads a folder or a dataset TOML. Settings given here win over the file's.

    The split is by the images' content, so it does not change when files are renamed or moved.

    Raises:
        InputErrors: every unreadable image, missing caption or unknown setting found in one pass.
    """
    found, chosen = _Found(), dict(settings or {})
    if not path.exists():
        raise InputError(
            f"dataset {str(path)!r} does not exist; must be a folder of captioned images or a dataset .toml"
        )
    if path.is_dir() and (path / "dataset.toml").is_file():
        path = path / "dataset.toml"
    if path.suffix == ".toml":
        final = settings_of(_read_toml(path, found) | chosen, str(path), found.mistakes)
    elif path.is_dir():
        final = settings_of(chosen, str(path), found.mistakes)
        _read_folder(path, final, found)
    else:
        raise InputError(f"dataset {str(path)!r} is a file; must be a folder of captioned images or a dataset .toml")
    if not found.images and not found.mistakes:
        kinds = ", ".join(IMAGE_SUFFIXES)
        found.mistakes.append(f"dataset {str(path)!r} holds no images; must hold some of {kinds}")
    if not found.mistakes and len(found.images) < 2:
        found.mistakes.append(f"dataset {str(path)!r} holds 1 image; must hold at least 2, since one is held out")
    if found.mistakes:
        raise InputErrors(dict.fromkeys(found.mistakes))
    train, held_out = split(found.images, held_out_share, seed)
    return Dataset(train, held_out, final, name=path.parent.name if path.suffix == ".toml" else path.name)


def split(
    images: Iterable[CaptionedImage], share: float, seed: int
) -> tuple[tuple[CaptionedImage, ...], tuple[CaptionedImage, ...]]:
    """Training and held-out images: at least one of each, chosen by content and seed."""
    ordered = sorted(images, key=lambda image: (image.digest(), image.caption))
    count = min(len(ordered) - 1, max(1, round(len(ordered) * share)))
    chosen = set(random.Random(seed).sample(range(len(ordered)), count))
    train = tuple(image for index, image in enumerate(ordered) if index not in chosen)
    return train, tuple(ordered[index] for index in sorted(chosen))


def _read_folder(folder: Path, settings: DatasetSettings, found: _Found) -> None:
    if (folder / "metadata.jsonl").is_file():
        _read_metadata(folder, settings, found)
        return
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    for path in files:
        caption = path.with_suffix(settings.caption_extension)
        if not caption.is_file():
            found.mistakes.append(f"{path}: no caption; must have {caption.name} beside it")
            continue
        try:
            text = caption.read_text("utf-8").strip()
        except UnicodeDecodeError:
            found.mistakes.append(f"{caption}: is not UTF-8 text; must be a caption in UTF-8")
            continue
        _add(path, text, settings.repeats, found)


def _read_metadata(folder: Path, settings: DatasetSettings, found: _Found) -> None:
    try:
        lines = (folder / "metadata.jsonl").read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        found.mistakes.append(f"{folder / 'metadata.jsonl'}: is not UTF-8 text; must be one JSON object a line")
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{folder / 'metadata.jsonl'}:{number}"
        try:
            entry = json.loads(line)
            name, text = entry["file_name"], entry["text"]
        except (json.JSONDecodeError, KeyError, TypeError):
            found.mistakes.append(f"{place}: must be a JSON object with file_name and text")
            continue
        if "\0" in str(name):
            found.mistakes.append(f"{place}: {name!r} is no file name")
            continue
        path = (folder / str(name)).resolve()
        if not path.is_relative_to(folder.resolve()):
            found.mistakes.append(f"{place}: {name!r} is outside the dataset's folder; must be inside it")
            continue
        _add(path, str(text), settings.repeats, found)


def _add(path: Path, caption: str, repeats: int, found: _Found) -> None:
    try:
        with Image.open(path) as image:
            if image.format == "PNG":
                image.verify()  # compares its check sums, which other formats do not have
            else:
                image.draft("RGB", (64, 64))  # a JPEG is read to its end, and decoded small
                image.load()
    except FileNotFoundError:
        found.mistakes.append(f"{path}: no such image")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        found.mistakes.append(f"{path}: cannot be read as an image ({type(error).__name__}); must be PNG, JPEG or WebP")
    else:
        found.images.append(CaptionedImage(path, caption, repeats))


def _read_toml(path: Path, found: _Found) -> dict[str, Any]:
    """Collects the subsets' images; returns the settings of the (single) dataset."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not TOML ({error})") from None
    _check_keys(path, "top level", document, {"general", "datasets"}, found)
    general = document.get("general", {})
    datasets = document.get("datasets", [])
    if not isinstance(datasets, list) or len(datasets) != 1:
        got = len(datasets) if isinstance(datasets, list) else "no list of"
        raise InputError(f"{path}: got {got} [[datasets]]; must be exactly one")
    dataset = datasets[0]
    _check_keys(path, "[general]", general, _TOML_GENERAL, found)
    _check_keys(path, "[[datasets]]", dataset, _TOML_DATASET, found)
    if dataset.get("enable_bucket"):
        found.mistakes.append(f"{path}: enable_bucket = true; must be false, aspect buckets are not supported")
    merged = general | {key: value for key, value in dataset.items() if key != "subsets"}
    subsets = dataset.get("subsets", [])
    if not isinstance(subsets, list):
        raise InputError(f"{path}: subsets is {subsets!r}; must be tables, [[datasets.subsets]]")
    for subset in subsets:
        _read_subset(path, merged, subset, found)
    return _settings_of(merged | _shared(subsets))


def _shared(subsets: list[dict[str, Any]]) -> dict[str, Any]:
    # Caption settings of a single subset are the dataset's; several subsets must agree on the dataset's own.
    return {key: value for key, value in subsets[0].items() if key in _TOML_GENERAL} if len(subsets) == 1 else {}


def _read_subset(path: Path, merged: dict[str, Any], subset: dict[str, Any], found: _Found) -> None:
    _check_keys(path, "[[datasets.subsets]]", subset, _TOML_SUBSET, found)
    folder = path.parent / str(subset.get("image_dir", ""))
    if "image_dir" not in subset or not folder.is_dir():
        found.mistakes.append(f"{path}: image_dir {subset.get('image_dir')!r} is not a folder beside this file")
        return
    options = merged | subset
    repeats, extension = options.get("num_repeats", 1), options.get("caption_extension", ".txt")
    shown = {"repeats": repeats, "caption_extension": extension}
    _read_folder(folder, settings_of(shown, str(path), found.mistakes), found)


def _settings_of(merged: Mapping[str, Any]) -> dict[str, Any]:
    """What kohya's names mean here, unchecked; a square may be written as a pair."""
    ours = {"caption_dropout_rate": "caption_dropout", "flip_aug": "flip"}
    named = {ours.get(name, name): value for name, value in merged.items()}
    resolution = named.get("resolution")
    if isinstance(resolution, list) and resolution and all(side == resolution[0] for side in resolution):
        named["resolution"] = resolution[0]
    return {name: value for name, value in named.items() if name in NAMES}


def _check_keys(path: Path, place: str, got: Any, known: set[str], found: _Found) -> None:
    if not isinstance(got, dict):
        raise InputError(f"{path}: {place} is {type(got).__name__}; must be a table")
    for key in got:
        if key not in known:
            found.mistakes.append(f"{path}: {place}: unknown key {key!r}; {nearest(key, known)}")


def pixels(path: Path, resolution: int) -> np.ndarray:
    """The image as uint8 (resolution, resolution, 3): transparency on white, centre-cropped to a square, LANCZOS."""
    with Image.open(path) as opened:
        image = opened.convert("RGBA")
    canvas = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(canvas, image).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((resolution, resolution), Image.Resampling.LANCZOS)).copy()


def shown_caption(caption: str, settings: DatasetSettings, rng: random.Random) -> str:
    """The caption as one training step sees it: dropped out, or its tags shuffled behind the kept ones."""
    if settings.caption_dropout and rng.random() < settings.caption_dropout:
        return ""
    if not settings.shuffle_caption:
        return caption
    tags = [tag.strip() for tag in caption.split(",")]
    kept, rest = tags[: settings.keep_tokens], tags[settings.keep_tokens :]
    rng.shuffle(rest)
    return ", ".join(kept + rest)
