"""Decoded images, kept in memory for the trials of one worker, and what an epoch does to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from trainables.lora.pictures import pixels

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of the channels, as torchvision's weights were trained with."""
KEPT = 2
"""Sets of decoded images that a worker keeps: sizes differ from trial to trial where the size is searched."""
_SHARED = "classification.pixels"


def decoded(paths: Sequence[Path], size: int, shared: dict[str, Any]) -> torch.Tensor:
    """``(n, 3, size, size)`` uint8, decoded once a worker for the same files (path, length and time of change)."""
    kept: dict[Any, torch.Tensor] = shared.setdefault(_SHARED, {})
    key = (size, tuple((str(path), *_state(path)) for path in paths))
    if key not in kept:
        while len(kept) >= KEPT:
            kept.pop(next(iter(kept)))
        stacked = np.stack([pixels(path, size) for path in paths])
        kept[key] = torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()
    return kept[key]


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def statistics(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over uint8 images ``(n, 3, h, w)``, of values scaled to 0..1; a
    constant channel has 1."""
    values = [images[:, channel].double() / 255 for channel in range(images.shape[1])]
    deviations = [float(value.std(correction=0)) for value in values]
    return tuple(float(value.mean()) for value in values), tuple(one if one > 1e-6 else 1.0 for one in deviations)


def normalised(
    images: torch.Tensor, mean: Sequence[float], deviation: Sequence[float], device: torch.device
) -> torch.Tensor:
    """uint8 images as a network takes them: ``(x / 255 - mean) / deviation``, channels last."""
    values = images.to(device).float().div_(255)
    centre, scale = (torch.tensor(list(part), device=device)[:, None, None] for part in (mean, deviation))
    return ((values - centre) / scale).contiguous(memory_format=torch.channels_last)


def augmented(images: torch.Tensor, chance: torch.Generator, *, flip: bool, crop: bool) -> torch.Tensor:
    """uint8 images ``(n, 3, h, w)``, each mirrored by even chance, and shifted by up to an eighth (edges repeated)."""
    n, _, height, width = images.shape
    if flip:
        mirrored = torch.rand(n, generator=chance) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    if crop:
        pad = max(1, height // 8)
        # Padding repeats edges, which is not done in uint8.
        padded = F.pad(images.float(), (pad, pad, pad, pad), mode="replicate").to(torch.uint8)
        across, down = torch.randint(0, 2 * pad + 1, (2, n), generator=chance)
        rows = down[:, None] + torch.arange(height)
        columns = across[:, None] + torch.arange(width)
        images = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return images
