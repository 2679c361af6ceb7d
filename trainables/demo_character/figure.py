"""The creature's body: ellipsoids with a colour each. The picture is 2.24 high; y is up, z points at the viewer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Triple = tuple[float, float, float]

TURQUOISE: Triple = (0.16, 0.70, 0.72)
DEEP_TURQUOISE: Triple = (0.11, 0.58, 0.65)
CREAM: Triple = (1.00, 0.91, 0.76)
YELLOW: Triple = (1.00, 0.78, 0.16)
CORAL: Triple = (0.98, 0.47, 0.40)
GROUND = -0.93
"""Height of the floor that the feet stand on."""


@dataclass(frozen=True)
class Ellipsoid:
    """One part of the body: centre, radii along its own axes, roll about z in degrees, colour as RGB in 0..1."""

    centre: Triple
    radii: Triple
    colour: Triple
    roll: float = 0.0
    has_face: bool = False
    has_belly: bool = False

    def to_unit_sphere(self) -> Array:
        """Matrix (3, 3) that takes offsets from the centre to the space where this part is the unit sphere."""
        return np.diag(1.0 / np.asarray(self.radii)) @ rotation(roll=-self.roll)

    @property
    def size(self) -> float:
        """Radius of the sphere of the same volume."""
        return float(np.prod(self.radii) ** (1 / 3))


def rotation(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Array:
    """Matrix (3, 3) that turns the figure by degrees: yaw to its left, then pitch towards the viewer, then roll."""
    y, p, r = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x @ about_y)


@cache
def body() -> tuple[Ellipsoid, ...]:
    """The parts, the head first."""
    head = Ellipsoid((0, 0.17, 0), (0.70, 0.60, 0.60), TURQUOISE, has_face=True)
    torso = Ellipsoid((0, -0.56, 0), (0.37, 0.34, 0.33), TURQUOISE, has_belly=True)
    stalk = Ellipsoid((0, 0.80, 0), (0.035, 0.14, 0.035), DEEP_TURQUOISE)
    bobble = Ellipsoid((0, 0.96, 0), (0.115, 0.115, 0.115), YELLOW)
    return (head, torso, stalk, bobble, *_pair_of_limbs(-1), *_pair_of_limbs(1))


def _pair_of_limbs(side: int) -> tuple[Ellipsoid, ...]:
    ear = Ellipsoid((side * 0.52, 0.63, -0.02), (0.19, 0.19, 0.13), TURQUOISE, roll=side * -20)
    inner_ear = Ellipsoid((side * 0.52, 0.63, 0.075), (0.115, 0.115, 0.07), CORAL, roll=side * -20)
    arm = Ellipsoid((side * 0.40, -0.52, 0.08), (0.105, 0.20, 0.115), DEEP_TURQUOISE, roll=side * 32)
    foot = Ellipsoid((side * 0.18, -0.84, 0.10), (0.155, 0.095, 0.21), YELLOW)
    return ear, inner_ear, arm, foot
