"""Which images are failures: not finite, black, flat, or one colour all over (docs/scoring.md)."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainables.evaluation.pixels import Images, as_float
from trainables.evaluation.style import Style


class Failure(enum.StrEnum):
    """Why an image is no picture."""

    NAN = "nan"
    BLACK = "black"
    FLAT = "flat"
    SATURATED = "saturated"


@dataclass(frozen=True)
class Thresholds:
    """From where on an image is a failure.

    `black` is a mean brightness and `flat` a contrast, both too low when under it; `saturated` is the share of pixels
    of one colour, too high when above it.
    """

    black: float = 0.03
    flat: float = 0.03
    saturated: float = 0.95

    @classmethod
    def relative_to(cls, references: Images) -> Thresholds:
        """Thresholds that the user's own images pass with room to spare: a dark or white-backed style is no failure.

        A quarter of the lowest contrast and half the lowest brightness of the references, and half way from their
        largest one-coloured share to the whole image; never milder than what is plainly empty.
        """
        style, share = Style.of(references), one_colour_share(references)
        return cls(
            black=float(np.clip(style.brightness.min() / 2, 0.002, cls.black)),
            flat=float(np.clip(style.contrast.min() / 4, 0.005, 2 * cls.flat)),
            saturated=float(np.clip((1 + share.max()) / 2, cls.saturated, 0.999)),
        )


def find_failures(images: Images, thresholds: Thresholds | None = None) -> tuple[Failure | None, ...]:
    """The failure of each image (N, H, W, 3), None for a picture."""
    limits = thresholds or Thresholds()
    finite = np.isfinite(images).all(axis=(1, 2, 3))
    pixels = as_float(np.where(finite[:, None, None, None], images, np.zeros_like(images)))
    style, share = Style.of(pixels), one_colour_share(pixels)

    def judge(index: int) -> Failure | None:
        if not finite[index]:
            return Failure.NAN
        if style.brightness[index] < limits.black:
            return Failure.BLACK
        if style.contrast[index] < limits.flat:
            return Failure.FLAT
        return Failure.SATURATED if share[index] > limits.saturated else None

    return tuple(judge(index) for index in range(len(images)))


def mostly_failed(failed: Sequence[object]) -> bool:
    """Whether more than half are failures: such a trial ends with the cause ``black_images``."""
    return 2 * sum(map(bool, failed)) > len(failed)


def one_colour_share(images: Images) -> np.ndarray:
    """Share (N,) of each image's pixels that have its most frequent colour, counted in steps of 4 in 256."""
    levels = (as_float(images) * 255).round().astype(np.int64) // 4
    colours = (levels[..., 0] << 12) | (levels[..., 1] << 6) | levels[..., 2]
    return np.array([np.unique(colour, return_counts=True)[1].max() / colour.size for colour in colours])
