"""The captioned renders that tiny-sd is trained on: images, caption variants and the held-out split."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trainables.tiny_sd.architecture import IMAGE_SIZE

HELD_OUT = 96
"""Pairs that no stage ever trains on; every figure of the model card is measured on them."""
STYLE = ", 3d render, white background"
NOT_MIRRORED = ("left", "right", "clock", "arrow", "flag", "button", "sign", "oncoming", "one", "two", "three")


@dataclass(frozen=True)
class Render:
    """One captioned image: pixels as uint8 (96, 96, 3), name without the style suffix, and its category words."""

    pixels: np.ndarray
    name: str
    topic: str

    def captions(self) -> tuple[str, str, str]:
        """The full caption, the bare name, and the name with its topic."""
        return self.name + STYLE, self.name, f"{self.name}, {self.topic}"

    @property
    def mirrored(self) -> bool:
        """Whether the mirror image still fits the caption."""
        return not any(word in self.name for word in NOT_MIRRORED)


def load(folder: Path) -> tuple[list[Render], list[Render]]:
    """Reads ``metadata.jsonl`` and its images; returns training and held-out renders, the same split every time."""
    renders = []
    for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines():
        entry = json.loads(line)
        pixels = np.asarray(Image.open(folder / entry["file_name"]).convert("RGB"))
        topic = entry["subcategory"].replace("-", " ")
        renders.append(Render(pixels, entry["text"].removesuffix(STYLE), topic))
    random.Random(0).shuffle(renders)
    return renders[HELD_OUT:], renders[:HELD_OUT]


def view(render: Render, rng: random.Random | None = None) -> torch.Tensor:
    """The render as a (3, 64, 64) tensor in -1..1; with `rng`, randomly zoomed, shifted and mirrored."""
    image = Image.fromarray(render.pixels)
    if rng is not None:
        side = rng.randint(84, 108)
        canvas = Image.new("RGB", (108, 108), "white")
        canvas.paste(image, (6, 6))
        left, top = rng.randint(0, 108 - side), rng.randint(0, 108 - side)
        image = canvas.crop((left, top, left + side, top + side))
        if render.mirrored and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float().div_(127.5).sub_(1)
