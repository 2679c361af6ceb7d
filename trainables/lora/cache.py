"""Latents of a dataset: computed once per dataset and node, kept on disk, never stale."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from trainables.lora.base import Base
from trainables.lora.dataset import CaptionedImage, pixels
from trainables.lora.paths import cache_folder

_VERSION = "1"  # raise it when what is stored for the same key changes
_BATCH = 16


@dataclass(frozen=True)
class Latents:
    """Posterior of each image under the VAE, scaled: `mean` and `std` are (N, views, channels, height, width); view 1
    is mirrored."""

    mean: torch.Tensor
    std: torch.Tensor

    def sample(self, rows: Sequence[int], views: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        """One draw per row, (len(rows), channels, height, width)."""
        mean, std = self.mean[list(rows), list(views)], self.std[list(rows), list(views)]
        return mean + std * torch.randn(mean.shape, generator=generator)


def key(base: Base, images: Sequence[CaptionedImage], resolution: int, flip: bool) -> str:
    """Name of the cache entry: the exact weights, the exact bytes of the images in order, the preprocessing."""
    digest = hashlib.sha256(f"{_VERSION}|{base.identity}|{resolution}|{flip}".encode())
    for image in images:
        digest.update(bytes.fromhex(image.digest()))
    return digest.hexdigest()


def latents(base: Base, images: Sequence[CaptionedImage], resolution: int, *, flip: bool = False) -> Latents:
    """Latents of the images, from the cache where they are in it. A damaged entry is made again."""
    path = cache_folder() / "latents" / f"{key(base, images, resolution, flip)}.safetensors"
    if path.is_file():
        try:
            stored = load_file(path)
            return Latents(stored["mean"], stored["std"])
        except (SafetensorError, KeyError, OSError):
            path.unlink(missing_ok=True)
    made = _encode(base, images, resolution, flip)
    _store(path, {"mean": made.mean, "std": made.std})
    return made


@torch.no_grad()  # not inference mode: its tensors could not take part in training
def text_states(base: Base, captions: Sequence[str]) -> dict[str, torch.Tensor]:
    """Text states (context length, width) of each caption under the base's own text encoder, from the cache as
    latents are.

    For trials that leave the text encoder as it is; with an adapter on it, states change at every step.
    """
    unique = sorted(set(captions))
    digest = hashlib.sha256(f"{_VERSION}|{base.identity}|text".encode())
    for caption in unique:
        digest.update(hashlib.sha256(caption.encode()).digest())
    path = cache_folder() / "text" / f"{digest.hexdigest()}.safetensors"
    if path.is_file():
        try:
            return dict(zip(unique, load_file(path)["states"].to(base.device), strict=True))
        except (SafetensorError, KeyError, OSError, ValueError):
            path.unlink(missing_ok=True)
    parts = [unique[start : start + _BATCH] for start in range(0, len(unique), _BATCH)]
    states = torch.cat([base.text_states(base.tokens(part)) for part in parts])
    _store(path, {"states": states.cpu()})
    return dict(zip(unique, states, strict=True))


def _store(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Whole or not at all; when two workers write, the later one wins with the same content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, scratch)
    Path(scratch).replace(path)


@torch.inference_mode()
def _encode(base: Base, images: Sequence[CaptionedImage], resolution: int, flip: bool) -> Latents:
    means, stds = [], []
    for start in range(0, len(images), _BATCH):
        arrays = np.stack([pixels(image.path, resolution) for image in images[start : start + _BATCH]])
        batch = torch.from_numpy(arrays).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        views = torch.stack([batch, batch.flip(-1)] if flip else [batch], dim=1)
        posterior = base.vae.encode(views.flatten(0, 1).to(base.device)).latent_dist
        scale = base.vae.config.scaling_factor
        means.append((posterior.mean * scale).cpu().unflatten(0, views.shape[:2]))
        stds.append((posterior.std * scale).cpu().unflatten(0, views.shape[:2]))
    return Latents(torch.cat(means).clone(), torch.cat(stds).clone())
