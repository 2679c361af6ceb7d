"""The creature's face: painted on the head in longitude u and latitude v (radians), so it turns along."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from trainables.demo_character.figure import CORAL, CREAM, Array, Triple

INK: Triple = (0.15, 0.10, 0.17)
WHITE: Triple = (1.0, 1.0, 1.0)
TONGUE: Triple = (0.97, 0.45, 0.47)
THROAT: Triple = (0.47, 0.10, 0.16)
HEART: Triple = (0.93, 0.16, 0.30)

EYE_U, EYE_V = 0.38, 0.15
SCALE = 1.14
"""How much larger the face is drawn than the lengths below say, so that it reads at 64 pixels."""
SOFT = 0.02
"""Width of the edges of what is painted, in radians: a pixel or so."""

Eye = Literal["open", "wide", "arc", "lid", "heart", "glare"]
Mouth = Literal["smile", "laugh", "frown", "round", "small", "line", "smirk"]


@dataclass(frozen=True)
class Expression:
    """What the face does.

    `brow` is the slope of the brows: above 0 the inner ends are up (worry), below down (anger); None: no brows.
    `brow_height` lifts them, in radians. `blush` is the strength of the cheeks' red in 0..1.
    """

    left: Eye
    right: Eye
    mouth: Mouth
    brow: float | None = None
    brow_height: float = 0.0
    blush: float = 0.45


def ellipse(u: Array, v: Array, at: tuple[float, float], radii: tuple[float, float]) -> Array:
    """Coverage in 0..1 of an ellipse with soft edges."""
    distance = np.hypot((u - at[0]) / radii[0], (v - at[1]) / radii[1])
    return np.clip((1.0 - distance) * min(radii) / SOFT + 0.5, 0, 1)


def stroke(u: Array, v: Array, line: Callable[[Array], Array], span: tuple[float, float], width: float) -> Array:
    """Coverage of a round-ended stroke of half-width `width` along v = line(u) for u in `span`."""
    nearest = np.clip(u, *span)
    slope = (line(nearest + 1e-3) - line(nearest - 1e-3)) / 2e-3
    # The vertical distance overstates the distance to a steep line by the line's slope.
    distance = np.hypot(u - nearest, (v - line(nearest)) / np.hypot(1, np.where(u == nearest, slope, 0)))
    return np.clip((width - distance) / SOFT + 0.5, 0, 1)


def paint(colour: Array, u: Array, v: Array, expression: Expression) -> Array:
    """The head's colours (N, 3) with the face painted over them at longitudes `u` and latitudes `v`, each (N,)."""
    u, v = u / SCALE, v / SCALE
    colour = _over(colour, ellipse(u, v, (0, -0.06), (0.86, 0.62)), CREAM)
    for side, eye in ((-1, expression.right), (1, expression.left)):
        blush = np.exp(-(((u - side * 0.60) / 0.15) ** 2) - ((v + 0.17) / 0.11) ** 2)
        colour = _over(colour, expression.blush * blush, CORAL)
        colour = _EYES[eye](colour, side * u - EYE_U, v - EYE_V)
        if expression.brow is not None:
            colour = _brow(colour, side * u - EYE_U, v - EYE_V, expression.brow, expression.brow_height)
    return _MOUTHS[expression.mouth](colour, u, v + 0.26)


def _over(under: Array, coverage: Array, colour: Triple) -> Array:
    return under + coverage[:, None] * (np.asarray(colour) - under)


# Eyes: u grows outwards from the eye's centre, v upwards.


def _open_eye(colour: Array, u: Array, v: Array, scale: float = 1.0, lid: Array | float = 1.0) -> Array:
    colour = _over(colour, lid * ellipse(u, v, (0, 0), (0.125 * scale, 0.185 * scale)), INK)
    colour = _over(colour, lid * ellipse(u, v, (-0.035, 0.075 * scale), (0.05 * scale, 0.06 * scale)), WHITE)
    return _over(colour, lid * 0.7 * ellipse(u, v, (0.045, -0.085 * scale), (0.03, 0.03)), WHITE)


def _wide_eye(colour: Array, u: Array, v: Array) -> Array:
    colour = _over(colour, ellipse(u, v, (0, 0.03), (0.22, 0.26)), INK)
    colour = _over(colour, ellipse(u, v, (0, 0.03), (0.19, 0.23)), WHITE)
    return _over(colour, ellipse(u, v, (0, 0.02), (0.085, 0.10)), INK)


def _arc_eye(colour: Array, u: Array, v: Array) -> Array:
    return _over(colour, stroke(u, v, lambda x: 0.09 - 7 * x**2, (-0.15, 0.15), 0.045), INK)


def _lid_eye(colour: Array, u: Array, v: Array) -> Array:
    return _over(colour, stroke(u, v, lambda x: -0.09 + 3.5 * x**2, (-0.16, 0.16), 0.042), INK)


def _glaring_eye(colour: Array, u: Array, v: Array) -> Array:
    lid = np.clip((0.04 + 0.75 * u - v) / SOFT + 0.5, 0, 1)
    return _open_eye(colour, u, v, 1.05, lid)


def _heart_eye(colour: Array, u: Array, v: Array) -> Array:
    x, y = u / 0.19, (v + 0.01) / 0.19
    # The implicit heart (x² + y² - 1)³ = x² y³, inside where the left side is smaller.
    inside = x**2 * y**3 - (x**2 + y**2 - 1) ** 3
    colour = _over(colour, np.clip(inside * 4 + 0.5, 0, 1), HEART)
    return _over(colour, 0.8 * ellipse(u, v, (-0.07, 0.08), (0.035, 0.035)), WHITE)


def _brow(colour: Array, u: Array, v: Array, slope: float, height: float) -> Array:
    return _over(colour, stroke(u, v, lambda x: 0.27 + height - slope * x, (-0.16, 0.14), 0.043), INK)


# Mouths: v grows upwards from the mouth's centre.


def _open_mouth(colour: Array, u: Array, v: Array, width: float, depth: float) -> Array:
    below = np.clip((0.06 + 0.15 * u**2 / width**2 - v) / SOFT + 0.5, 0, 1)
    shape = below * ellipse(u, v, (0, 0.06), (width, depth))
    colour = _over(colour, shape, THROAT)
    return _over(colour, shape * ellipse(u, v, (0, 0.02 - depth), (width * 0.62, depth * 0.55)), TONGUE)


def _round_mouth(colour: Array, u: Array, v: Array) -> Array:
    return _over(colour, ellipse(u, v, (0, -0.05), (0.12, 0.16)), THROAT)


def _curved_mouth(colour: Array, u: Array, v: Array, bend: float, span: float = 0.22, tilt: float = 0.0) -> Array:
    def line(x: Array) -> Array:
        return bend * (x**2 - span**2 / 2) + tilt * x

    return _over(colour, stroke(u, v, line, (-span, span), 0.042), INK)


_EYES: Mapping[Eye, Callable[[Array, Array, Array], Array]] = {
    "open": _open_eye,
    "wide": _wide_eye,
    "arc": _arc_eye,
    "lid": _lid_eye,
    "heart": _heart_eye,
    "glare": _glaring_eye,
}
_MOUTHS: Mapping[Mouth, Callable[[Array, Array, Array], Array]] = {
    "smile": partial(_curved_mouth, bend=3.0, span=0.27),
    "laugh": partial(_open_mouth, width=0.36, depth=0.36),
    "frown": partial(_curved_mouth, bend=-3.5),
    "round": _round_mouth,
    "small": partial(_curved_mouth, bend=4.0, span=0.10),
    "line": partial(_curved_mouth, bend=-2.0, span=0.24),
    "smirk": partial(_open_mouth, width=0.26, depth=0.24),
}
