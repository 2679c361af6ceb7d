"""The one form that images have inside the evaluation."""

from __future__ import annotations

import numpy as np
import torch

Images = np.ndarray
"""(N, H, W, 3), uint8 in 0..255 or floats in 0..1."""


def as_float(images: Images) -> np.ndarray:
    """The images as float32 (N, H, W, 3) in 0..1; NaN stays NaN.

    Raises:
        ValueError: another shape, or floats outside 0..1 (which are uint8 values that lost their type).
    """
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape[1:]:
        raise ValueError(f"images have shape {images.shape}; must be (N, height, width, 3)")
    if images.dtype == np.uint8:
        return images.astype(np.float32) / 255
    finite = images[np.isfinite(images)]
    if finite.size and not (finite.min() >= -1e-4 and finite.max() <= 1 + 1e-4):
        raise ValueError(f"float images range over {finite.min():.3g}..{finite.max():.3g}; must be in 0..1")
    return images.astype(np.float32).clip(0, 1)


def as_uint8(images: Images) -> np.ndarray:
    """The images as uint8 (N, H, W, 3), rounded; what is not finite becomes black."""
    pixels = np.nan_to_num(as_float(images), nan=0.0, posinf=0.0, neginf=0.0)
    return (pixels * 255).round().astype(np.uint8)


def as_tensor(images: Images, device: torch.device | str = "cpu") -> torch.Tensor:
    """The images as a float32 tensor (N, 3, H, W) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(as_float(images).transpose(0, 3, 1, 2))).to(device)
