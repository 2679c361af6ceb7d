"""The demo's images: shapes in colours, with a caption each, drawn by the project. Loads no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.classification.drawing import HUES, TEXTURES, colour, mask, textured

VERSION = 1
CLASSES = ("circle", "cross", "moon", "square", "star", "triangle")
BACKGROUNDS = ("grey", "sand", "sky")
_HUE_OF = {"grey": (0.0, 0.0), "sand": (0.11, 0.35), "sky": (0.56, 0.3)}


@dataclass(frozen=True)
class Drawn:
    """What one picture shows."""

    shape: str
    colour: str
    texture: str
    background: str

    @property
    def caption(self) -> str:
        """Two of three say the shape: the text helps, and does not give everything away."""
        return f"a {self.texture} {self.colour} {self.shape} on {self.background}"


def draw(what: Drawn, chance: np.random.Generator, size: int = 64) -> Image.Image:
    """A shape of any size, place and turn on its background, with noise."""
    hue, saturation = _HUE_OF[what.background]
    ground = np.broadcast_to(colour(hue, saturation, float(chance.uniform(0.55, 0.9))), (size, size, 3))
    own = HUES[what.colour] + float(chance.normal(0, 0.01))
    inside = textured(
        what.texture,
        size,
        period=size * float(chance.uniform(0.12, 0.22)),
        degrees=float(chance.uniform(0, 180)),
        dark=colour(own, 0.9, 0.45),
        light=colour(own, 0.75, 0.95),
    )
    centre = tuple(size * (0.5 + chance.uniform(-0.14, 0.14, 2)))
    radius = size * float(chance.uniform(0.2, 0.36))
    share = mask(what.shape, size, (float(centre[0]), float(centre[1])), radius, float(chance.uniform(-30, 30)))
    pixels = ground * (1 - share[:, :, None]) + inside * share[:, :, None] + chance.normal(0, 12, (size, size, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_dataset(folder: Path, count: int = 480, seed: int = 0, size: int = 64) -> Path:
    """Writes `count` PNGs and a ``metadata.jsonl`` (file_name, label, text, background); classes take turns.

    A third of the texts keep the shape to themselves. The same arguments give the same bytes. Returns the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(seed)
    lines = []
    for number in range(count):
        shape = CLASSES[number % len(CLASSES)]
        what = Drawn(shape, *(str(chance.choice(list(names))) for names in (HUES, TEXTURES, BACKGROUNDS)))
        name = f"shape_{number:04d}.png"
        draw(what, chance, size).save(folder / name)
        text = what.caption if chance.random() > 1 / 3 else what.caption.replace(shape, "shape")
        entry = {"file_name": name, "label": shape, "text": text, "background": what.background}
        lines.append(json.dumps(entry) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder
