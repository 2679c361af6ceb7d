"""Brightness, contrast and saturation of images: the style part of the score (docs/scoring.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainables.evaluation.pixels import Images, as_float


@dataclass(frozen=True)
class Style:
    """One number an image, each an array (N,). Standard deviations are the population's."""

    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray

    @classmethod
    def of(cls, images: Images) -> Style:
        """Measures images (N, H, W, 3); an image that holds NaN measures NaN."""
        pixels = as_float(images).astype(np.float64)
        return cls(
            brightness=pixels.mean(axis=(1, 2, 3)),
            contrast=pixels.std(axis=(1, 2, 3)),
            saturation=hsv_saturation(pixels).std(axis=(1, 2)),
        )


def hsv_saturation(pixels: np.ndarray) -> np.ndarray:
    """HSV saturation (N, H, W) of pixels (N, H, W, 3) in 0..1: chroma over value, 0 for black."""
    value, chroma = pixels.max(axis=-1), np.ptp(pixels, axis=-1)
    return np.divide(chroma, value, out=np.zeros_like(value), where=value != 0)
