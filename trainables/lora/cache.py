"""Latents and text states of a dataset: computed once per dataset and node, kept on disk, never stale."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from trainables.lora.base import Base
from trainables.lora.buckets import Size, time_ids
from trainables.lora.conditioning import Conditioning, stack
from trainables.lora.dataset import CaptionedImage
from trainables.lora.entries import Tensors, entry
from trainables.lora.pictures import pixels
from trainables.paths import cache_folder

_VERSION = "2"  # raise it when what is stored for the same key changes
_BATCH = 16


@dataclass(frozen=True)
class Latents:
    """Posteriors of images under the VAE, scaled.

    `means` and `stds` hold, for each bucket, (entries, channels, height, width); `places` says of each image (a row)
    in which bucket it is and at which entry its first view; the mirrored view follows.
    """

    means: tuple[torch.Tensor, ...]
    stds: tuple[torch.Tensor, ...]
    places: tuple[tuple[int, int], ...]
    images: tuple[CaptionedImage, ...]

    def sample(self, rows: Sequence[int], views: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        """One draw for each row of one bucket, (len(rows), channels, height, width); view 1 is mirrored.

        Raises:
            ValueError: the rows are of several buckets.
        """
        bucket, entries = self._entries(rows, views)
        mean, std = self.means[bucket][entries], self.stds[bucket][entries]
        return mean + std * torch.randn(mean.shape, generator=generator)

    def mean(self, rows: Sequence[int]) -> torch.Tensor:
        """The most likely latents of rows of one bucket, not mirrored."""
        bucket, entries = self._entries(rows, [0] * len(rows))
        return self.means[bucket][entries]

    def time_ids(self, rows: Sequence[int], views: Sequence[int] | None = None) -> torch.Tensor:
        """What SDXL is told of the sizes, (len(rows), 6)."""
        shown = zip(rows, views or [0] * len(rows), strict=True)
        images = [(self.images[row], bool(view)) for row, view in shown]
        return torch.tensor([time_ids(image.size, image.target, mirrored=mirrored) for image, mirrored in images])

    def groups(self) -> list[list[int]]:
        """The rows of each bucket."""
        return [[row for row, place in enumerate(self.places) if place[0] == index] for index in range(len(self.means))]

    def _entries(self, rows: Sequence[int], views: Sequence[int]) -> tuple[int, list[int]]:
        places = [self.places[row] for row in rows]
        buckets = {bucket for bucket, _ in places}
        if len(buckets) != 1:
            raise ValueError(f"rows {list(rows)} are of {len(buckets)} buckets; must be of one")
        return buckets.pop(), [first + view for (_, first), view in zip(places, views, strict=True)]


def latents(base: Base, images: Sequence[CaptionedImage], *, mirrored: bool = True) -> Latents:
    """Latents of the images at the size that each is shown in, from the cache where they are in it.

    `mirrored` False leaves the mirrored views out, as validation does. A damaged entry is made again.
    """
    rows_of: dict[Size, list[int]] = {}
    for row, image in enumerate(images):
        rows_of.setdefault(image.target, []).append(row)
    places: dict[int, tuple[int, int]] = {}
    stored = []
    for bucket, (target, rows) in enumerate(sorted(rows_of.items())):
        rows.sort(key=lambda row: (images[row].digest, images[row].views))  # the entry is one of content, not of order
        members = [images[row] for row in rows]
        views = [image.views if mirrored else 1 for image in members]
        path = cache_folder() / "latents" / f"{key(base, members, views, target)}.safetensors"
        stored.append(entry(path, functools.partial(_encode, base, members, views)))
        firsts = itertools.accumulate(views, initial=0)
        places |= {row: (bucket, first) for row, first in zip(rows, firsts, strict=False)}
    in_order = tuple(places[row] for row in range(len(images)))
    means, stds = tuple(part["mean"] for part in stored), tuple(part["std"] for part in stored)
    return Latents(means, stds, in_order, tuple(images))


def key(base: Base, images: Sequence[CaptionedImage], views: Sequence[int], target: Size) -> str:
    """Name of a bucket's entry: the exact weights, the exact bytes of the images in order, the preprocessing."""
    digest = hashlib.sha256(f"{_VERSION}|{base.identity}|{target}".encode())
    for image, count in zip(images, views, strict=True):
        digest.update(bytes.fromhex(image.digest) + bytes([count]))
    return digest.hexdigest()


@torch.inference_mode()
def _encode(base: Base, images: Sequence[CaptionedImage], views: Sequence[int]) -> Tensors:
    means, stds = [], []
    scale = base.vae.config.scaling_factor
    for start in range(0, len(images), _BATCH):
        shown = []
        for image, count in zip(images[start : start + _BATCH], views[start : start + _BATCH], strict=True):
            array = torch.from_numpy(pixels(image.path, image.target)).permute(2, 0, 1).float().div(127.5).sub(1)
            shown += [array, array.flip(-1)][:count]
        posterior = base.vae.encode(torch.stack(shown).to(base.device)).latent_dist
        means.append((posterior.mean * scale).cpu())
        stds.append((posterior.std * scale).cpu())
    return {"mean": torch.cat(means).clone(), "std": torch.cat(stds).clone()}


@dataclass(frozen=True)
class KnownTexts:
    """Conditioning of captions under the base's own text encoders, kept on the CPU; `rows` by caption."""

    rows: Mapping[str, int]
    conditioning: Conditioning

    def knows(self, captions: Sequence[str]) -> bool:
        """Whether all of them are there."""
        return all(caption in self.rows for caption in captions)

    def of(self, captions: Sequence[str], device: torch.device) -> Conditioning:
        """The conditioning of captions, on `device`."""
        found = self.conditioning.rows([self.rows[caption] for caption in captions])
        pooled = None if found.pooled is None else found.pooled.to(device)
        return Conditioning(found.states.to(device), pooled)


@torch.no_grad()  # not inference mode: its tensors could not take part in training
def known_texts(base: Base, captions: Sequence[str]) -> KnownTexts:
    """Conditioning of each caption, from the cache as latents are.

    For trials that leave the text encoders as they are; with an adapter on one, states change at every step.
    """
    unique = sorted(set(captions))
    digest = hashlib.sha256(f"{_VERSION}|{base.identity}|{base.text_encoder.dtype}".encode())
    for caption in unique:
        digest.update(hashlib.sha256(caption.encode()).digest())
    with torch.autocast(base.device.type, enabled=False):  # what is kept must not depend on who asked first
        stored = entry(_text_path(digest.hexdigest()), lambda: _conditioning(base, unique))
    rows = {caption: row for row, caption in enumerate(unique)}
    return KnownTexts(rows, Conditioning(stored["states"], stored.get("pooled")))


def _text_path(name: str) -> Path:
    return cache_folder() / "text" / f"{name}.safetensors"


def _conditioning(base: Base, captions: Sequence[str]) -> Tensors:
    found = stack([base.condition(captions[start : start + _BATCH]) for start in range(0, len(captions), _BATCH)])
    named = {"states": found.states, "pooled": found.pooled}
    return {name: tensor.cpu() for name, tensor in named.items() if tensor is not None}
