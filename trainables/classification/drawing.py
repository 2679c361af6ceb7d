"""Shapes that the project draws itself: for the demo's images and, with other textures, for pre-training."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw

Points = list[tuple[float, float]]


def _polygon(corners: int, start: float = -90.0) -> Points:
    return [_around(start + 360 * index / corners) for index in range(corners)]


def _star(points: int, inner: float) -> Points:
    return [_around(-90 + 180 * index / points, inner if index % 2 else 1.0) for index in range(2 * points)]


def _around(degrees: float, radius: float = 1.0) -> tuple[float, float]:
    return radius * math.cos(math.radians(degrees)), radius * math.sin(math.radians(degrees))


_ARM = 0.36
SHAPES: Mapping[str, Points] = {
    "circle": _polygon(48),
    "triangle": _polygon(3),
    "square": _polygon(4, -45),
    "diamond": [(0, -1), (0.6, 0), (0, 1), (-0.6, 0)],
    "hexagon": _polygon(6),
    "star": _star(5, 0.42),
    "cross": [
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM), (_ARM, 1), (-_ARM, 1),
        (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ],
    "moon": [_around(angle) for angle in range(40, 321, 10)]
    + [(0.35 + 0.75 * x, 0.75 * y) for x, y in (_around(angle) for angle in range(300, 59, -10))],
    "arrow": [(-1, -0.3), (0.1, -0.3), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3)],
    "bar": [(-1, -0.28), (1, -0.28), (1, 0.28), (-1, 0.28)],
}  # fmt: skip
"""Outlines within the unit circle, y downwards."""

HUES: Mapping[str, float] = {
    "red": 0.0, "orange": 0.08, "yellow": 0.15, "green": 0.35, "cyan": 0.5, "blue": 0.62, "purple": 0.76, "pink": 0.9,
}  # fmt: skip
"""Of HSV, 0 to 1."""

Texture = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""Of coordinates (pixels) and a period in pixels: brightness from 0 to 1."""
TEXTURES: Mapping[str, Texture] = {
    "plain": lambda x, y, period: np.ones_like(x),  # noqa: ARG005  # as the others
    "stripes": lambda x, y, period: 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * (x + y) / period)),
    "rows": lambda x, y, period: 0.5 + 0.5 * np.sin(2 * np.pi * y / period),  # noqa: ARG005  # as the others
    "checks": lambda x, y, period: 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * x / period) * np.sin(2 * np.pi * y / period)),
    "dots": lambda x, y, period: (
        (np.mod(x, period) - period / 2) ** 2 + (np.mod(y, period) - period / 2) ** 2 > (period / 3.2) ** 2
    ).astype(float),
    "shade": lambda x, y, period: np.clip(0.5 + (x - y) / (8 * period), 0, 1),
}


def colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB from 0 to 255."""
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def mask(shape: str, size: int, centre: tuple[float, float], radius: float, degrees: float) -> np.ndarray:
    """Coverage ``(size, size)``, 0 to 1, of a shape about a centre (pixels), turned clockwise."""
    scale = 4
    turn = math.radians(degrees)
    points = [
        (
            scale * (centre[0] + radius * (x * math.cos(turn) - y * math.sin(turn))),
            scale * (centre[1] + radius * (x * math.sin(turn) + y * math.cos(turn))),
        )
        for x, y in SHAPES[shape]
    ]
    canvas = Image.new("L", (scale * size, scale * size), 0)
    ImageDraw.Draw(canvas).polygon(points, fill=255)
    return np.asarray(canvas.resize((size, size), Image.Resampling.BOX), dtype=np.float64) / 255


def textured(texture: str, size: int, period: float, degrees: float, dark: np.ndarray, light: np.ndarray) -> np.ndarray:
    """``(size, size, 3)``, 0 to 255: a texture turned by an angle, between two colours."""
    grid = np.arange(size, dtype=np.float64)
    x, y = np.meshgrid(grid, grid)
    turn = math.radians(degrees)
    values = TEXTURES[texture](x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn), period)
    return dark + (light - dark) * values[:, :, None]
