"""Captioned images on disk: a plain folder, an image-folder ``metadata.jsonl``, or a kohya dataset TOML. Loads no
torch."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.lora.buckets import Size
from trainables.lora.captions import shown_caption, varies
from trainables.lora.dataset_settings import DatasetSettings, Settings, Showing, settings_of
from trainables.lora.image_folder import Captioned, read_folder
from trainables.lora.kohya_toml import Subset, numbered_subsets, read_toml
from trainables.lora.pictures import IMAGE_SUFFIXES, pixels
from tune_lora.errors import InputError, InputErrors

__all__ = ["CaptionedImage", "Dataset", "DatasetSettings", "Showing", "load", "pixels", "shown_caption", "split"]


@dataclass(frozen=True)
class CaptionedImage:
    """One image file, its caption and how it is shown.

    `digest` is the SHA-256 of the file's bytes, `size` its width and height, `target` what it is resized and cut to:
    the dataset's resolution, or the image's bucket.
    """

    path: Path
    caption: str
    digest: str
    size: Size
    target: Size
    showing: Showing = field(default_factory=Showing)

    @property
    def repeats(self) -> int:
        """How often an epoch shows it."""
        return self.showing.repeats

    @property
    def views(self) -> int:
        """1, or 2 where it is also shown mirrored."""
        return 2 if self.showing.flip else 1

    @property
    def caption_varies(self) -> bool:
        """Whether its caption differs from step to step, other than by being left out."""
        return varies(self.showing)

    def shown_caption(self, rng: random.Random) -> str:
        """The caption as one training step sees it."""
        return shown_caption(self.caption, self.showing, rng)


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
    settings: list[DatasetSettings] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


def load(
    path: Path, settings: Mapping[str, Any] | None = None, *, held_out_share: float = 0.125, seed: int = 0
) -> Dataset:
    """Reads a folder or a dataset TOML. Settings given here win over the file's, in every subset.

    The split is by the images' content, so it does not change when files are renamed or moved.

    Raises:
        InputErrors: every unreadable image, missing caption or unknown setting found in one pass.
    """
    if not path.exists():
        raise InputError(
            f"dataset {str(path)!r} does not exist; must be a folder of captioned images or a dataset .toml"
        )
    if path.is_dir() and (path / "dataset.toml").is_file():
        path = path / "dataset.toml"
    found = _Found()
    for subset in _subsets(path, found.mistakes):
        _read(subset, dict(settings or {}), found)
    if len({one.batch_size for one in found.settings}) > 1:
        sizes = ", ".join(sorted({str(one.batch_size) for one in found.settings}))
        found.mistakes.append(f"{path}: batch_size differs between datasets ({sizes}); must be the same in all")
    if not found.mistakes and len(found.images) < 2:
        kinds = ", ".join(IMAGE_SUFFIXES)
        found.mistakes.append(
            f"dataset {str(path)!r} holds 1 image; must hold at least 2, since one is held out"
            if found.images
            else f"dataset {str(path)!r} holds no images; must hold some of {kinds}"
        )
    if found.mistakes:
        raise InputErrors(dict.fromkeys(found.mistakes))
    train, held_out = split(found.images, held_out_share, seed)
    name = path.parent.name if path.suffix == ".toml" else path.name
    return Dataset(train, held_out, found.settings[0], name=name)


def _subsets(path: Path, mistakes: list[str]) -> Sequence[Subset]:
    if path.suffix == ".toml":
        return read_toml(path, mistakes)
    if path.is_dir():
        return numbered_subsets(path) or [Subset(path, {}, str(path))]
    raise InputError(f"dataset {str(path)!r} is a file; must be a folder of captioned images or a dataset .toml")


def _read(subset: Subset, chosen: Mapping[str, Any], found: _Found) -> None:
    settings = settings_of({**subset.chosen, **chosen}, subset.source, found.mistakes)
    found.settings.append(DatasetSettings(settings.resolution, settings.batch_size))
    if subset.folder is not None:
        for image in read_folder(subset.folder, settings.captions, found.mistakes):
            found.images.append(_placed(image, settings))


def _placed(image: Captioned, settings: Settings) -> CaptionedImage:
    buckets = settings.buckets
    target = settings.resolution if buckets is None else buckets.choose(image.size)
    return CaptionedImage(image.path, image.caption, image.digest, image.size, target, settings.showing)


def split(
    images: Iterable[CaptionedImage], share: float, seed: int
) -> tuple[tuple[CaptionedImage, ...], tuple[CaptionedImage, ...]]:
    """Training and held-out images: at least one of each, chosen by content and seed.

    Copies of a held-out image are held out as well, unless nothing were left.
    """
    ordered = sorted(images, key=lambda image: (image.digest, image.caption))
    count = min(len(ordered) - 1, max(1, round(len(ordered) * share)))
    chosen = set(random.Random(seed).sample(range(len(ordered)), count))
    copies = {ordered[index].digest for index in chosen}
    apart = {index for index, image in enumerate(ordered) if image.digest in copies}
    chosen = apart if len(apart) < len(ordered) else chosen
    train = tuple(image for index, image in enumerate(ordered) if index not in chosen)
    return train, tuple(ordered[index] for index in sorted(chosen))
