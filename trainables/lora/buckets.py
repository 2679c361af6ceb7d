"""Aspect buckets: sizes of about the same area, so that pictures of any shape are trained with little cut off."""

from __future__ import annotations

import math
from dataclasses import dataclass

Size = tuple[int, int]
"""Width and height, in pixels."""
SMALLEST, LARGEST = 256, 1024
"""Shortest and longest side of a bucket unless said otherwise, where the resolution allows."""


@dataclass(frozen=True)
class Buckets:
    """The buckets of one dataset, with kohya's meaning of each setting.

    Sides are multiples of `step` from `least` to `most`, areas at most that of `resolution`. With `no_upscale` there
    is a bucket for every shape instead: an image larger than the area is reduced to it, a smaller one keeps its size,
    both rounded down to `step`.
    """

    resolution: Size
    least: int = SMALLEST
    most: int = LARGEST
    step: int = 64
    no_upscale: bool = False

    @property
    def area(self) -> int:
        """Most pixels that a bucket has."""
        return self.resolution[0] * self.resolution[1]

    def sizes(self) -> tuple[Size, ...]:
        """All buckets, in both orientations; with `no_upscale` they follow from the images, and this is not asked."""
        side = math.isqrt(self.area) // self.step * self.step
        found = {(side, side)} if side else set()
        for width in range(-(-self.least // self.step) * self.step, self.most + 1, self.step):
            height = min(self.most, self.area // width) // self.step * self.step
            if height >= self.least:
                found |= {(width, height), (height, width)}
        return tuple(sorted(found))

    def choose(self, size: Size) -> Size:
        """The bucket of an image: of the nearest aspect ratio, the larger one of two."""
        if self.no_upscale:
            return self._reduced(size)
        aspect = size[0] / size[1]
        return min(self.sizes(), key=lambda one: (abs(one[0] / one[1] - aspect), -one[0] * one[1], one))

    def _reduced(self, size: Size) -> Size:
        width, height = size
        if width * height > self.area:
            width, height = math.isqrt(self.area * width // height), math.isqrt(self.area * height // width)
        return max(width // self.step, 1) * self.step, max(height // self.step, 1) * self.step


def crop_box(size: Size, target: Size) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the part of an image that is shown: centred, of the target's aspect ratio, as
    large as fits."""
    scale = _cover(size, target)
    width, height = min(size[0], target[0] / scale), min(size[1], target[1] / scale)
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, left + width, top + height


def time_ids(size: Size, target: Size, *, mirrored: bool = False) -> tuple[int, int, int, int, int, int]:
    """What SDXL is told of an image (Podell et al. 2023): original height and width, the crop's top and left in the
    resized image, shown height and width."""
    scale = _cover(size, target)
    spare = round(size[0] * scale) - target[0], round(size[1] * scale) - target[1]
    left, top = max(spare[0], 0) // 2, max(spare[1], 0) // 2
    if mirrored:
        left = max(spare[0], 0) - left
    return size[1], size[0], top, left, target[1], target[0]


def _cover(size: Size, target: Size) -> float:
    """By how much an image is resized to cover the target."""
    return max(target[0] / size[0], target[1] / size[1])
