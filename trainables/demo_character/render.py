"""Draws the creature: parallel rays against ellipsoids, soft light, contact shading, a shadow on a white floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from trainables.demo_character.face import Expression, ellipse, paint
from trainables.demo_character.figure import CREAM, GROUND, Array, Ellipsoid, body, rotation

HALF_HEIGHT = 1.12
CENTRE_Y = 0.06
SUPERSAMPLING = 2
SHADE_TINT = np.array([0.50, 0.46, 0.66])
"""What light leaves in the darkest shade: a cool tint, as in soft studio renders, never black."""


@dataclass(frozen=True)
class Camera:
    """How the figure is turned (degrees) and where the light comes from (x to the right, y up, z to the viewer)."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    light: tuple[float, float, float] = (-0.55, 0.75, 0.75)


@dataclass(frozen=True)
class _Hits:
    """Where rays meet the figure: index of the pixel and of the part (M,), points and outward normals (M, 3)."""

    pixel: np.ndarray
    part: np.ndarray
    point: Array
    normal: Array


def draw(expression: Expression, camera: Camera, size: int = 128) -> Image.Image:
    """The creature on white, as an RGB image of `size` x `size` pixels."""
    side = size * SUPERSAMPLING
    x, y = _plane(side)
    turn = rotation(camera.yaw, camera.pitch, camera.roll)
    hits = _trace(body(), turn, x, y)
    canvas = _floor(x, y, camera)
    canvas[hits.pixel] = _shade(hits, turn, expression, camera)
    pixels = canvas.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 3).mean(axis=(1, 3))
    return Image.fromarray(np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def _plane(side: int) -> tuple[Array, Array]:
    """Coordinates x and y, each (side²,), of the rays in the camera's plane, row by row from the top."""
    line = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(line * HALF_HEIGHT, CENTRE_Y - line * HALF_HEIGHT)
    return x.ravel(), y.ravel()


def _trace(parts: tuple[Ellipsoid, ...], turn: Array, x: Array, y: Array) -> _Hits:
    """The nearest hit of each ray that meets a part. Rays run along -z, so the nearest is the one of greatest z."""
    depth = np.full(x.shape, -np.inf)
    owner = np.full(x.shape, -1)
    for index, part in enumerate(parts):
        z = _height(part, turn, x, y)
        nearer = z > depth
        depth[nearer], owner[nearer] = z[nearer], index
    pixel = np.flatnonzero(owner >= 0)
    point = np.stack([x[pixel], y[pixel], depth[pixel]], axis=1)
    normal = np.empty_like(point)
    for index, part in enumerate(parts):
        mine = owner[pixel] == index
        unit = part.to_unit_sphere() @ turn.T
        outward = (point[mine] - turn @ np.asarray(part.centre)) @ unit.T @ unit
        normal[mine] = outward / np.linalg.norm(outward, axis=1, keepdims=True)
    return _Hits(pixel, owner[pixel], point, normal)


def _height(part: Ellipsoid, turn: Array, x: Array, y: Array) -> Array:
    """Greatest z at which the rays at (x, y) meet the part; -inf where they miss. Solves |origin + z * ray| = 1."""
    unit = part.to_unit_sphere() @ turn.T
    origin = (np.stack([x, y, np.zeros_like(x)], axis=1) - turn @ np.asarray(part.centre)) @ unit.T
    ray = unit[:, 2]
    a, b, c = ray @ ray, origin @ ray, (origin**2).sum(axis=1) - 1
    inside = b**2 - a * c
    return np.where(inside > 0, (-b + np.sqrt(np.maximum(inside, 0))) / a, -np.inf)


def _floor(x: Array, y: Array, camera: Camera) -> Array:
    """White, with a soft shadow (N, 3) where the figure stands."""
    foot = rotation(pitch=camera.pitch) @ np.array([0.06, GROUND, 0.02])
    height = 0.07 + 0.30 * abs(np.sin(np.radians(camera.pitch)))
    distance = ((x - foot[0]) / 0.52) ** 2 + ((y - foot[1]) / height) ** 2
    shadow = 0.42 * np.exp(-1.6 * distance) + 0.10 * np.exp(-0.5 * distance)
    return 1.0 - shadow[:, None] * (1.0 - np.array([0.45, 0.47, 0.60]))


def _shade(hits: _Hits, turn: Array, expression: Expression, camera: Camera) -> Array:
    """Colours (M, 3): soft diffuse light, contact shading, a glossy highlight, a pale rim."""
    light = np.asarray(camera.light) / np.linalg.norm(camera.light)
    halfway = light + np.array([0.0, 0.0, 1.0])
    halfway /= np.linalg.norm(halfway)
    facing = hits.normal @ light
    diffuse = np.clip(0.45 + 0.62 * facing, 0, 1)
    lit = (diffuse * _openness(hits, turn))[:, None]
    gloss = 0.38 * np.clip(hits.normal @ halfway, 0, 1)[:, None] ** 42
    sheen = 0.10 * np.clip(hits.normal @ halfway, 0, 1)[:, None] ** 6
    rim = 0.16 * (1 - np.clip(hits.normal[:, 2:], 0, 1)) ** 3 * np.clip(hits.normal[:, 1:2] + 0.6, 0, 1)
    colour = _albedo(hits, turn, expression)
    return colour * (SHADE_TINT + (1.06 - SHADE_TINT) * lit) + gloss + sheen + rim


def _openness(hits: _Hits, turn: Array) -> Array:
    """Share of the sky each hit sees (M,), each other part and the floor taken for a sphere that hides some of it."""
    openness = 1.0 - 0.35 * np.clip(-hits.normal[:, 1], 0, 1) * np.exp(-2.0 * (hits.point[:, 1] - GROUND))
    for index, part in enumerate(body()):
        towards = turn @ np.asarray(part.centre) - hits.point
        distance = np.linalg.norm(towards, axis=1)
        cosine = np.einsum("ij,ij->i", hits.normal, towards) / distance
        hidden = np.clip(cosine, 0, 1) * np.minimum(1.0, (part.size / distance) ** 2)
        openness *= np.where(hits.part == index, 1.0, 1.0 - 0.75 * hidden)
    return openness


def _albedo(hits: _Hits, turn: Array, expression: Expression) -> Array:
    """The parts' own colours (M, 3), with face and belly painted on."""
    colour = np.empty_like(hits.point)
    for index, part in enumerate(body()):
        mine = hits.part == index
        colour[mine] = part.colour
        local = (hits.point[mine] @ turn - np.asarray(part.centre)) / np.asarray(part.radii)
        u, v = np.arctan2(local[:, 0], local[:, 2]), np.arcsin(np.clip(local[:, 1], -1, 1))
        if part.has_face:
            colour[mine] = paint(colour[mine], u, v, expression)
        if part.has_belly:
            belly = ellipse(u, v, (0, -0.1), (0.75, 0.85))[:, None]
            colour[mine] += belly * (np.asarray(CREAM) - colour[mine])
    return colour
