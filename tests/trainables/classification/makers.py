"""Small data sets that the classifier's tests write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (30, 40, 220), "green": (20, 180, 60), "red": (220, 30, 30)}


def picture(label: str, seed: int, size: int = 16) -> Image.Image:
    """A noisy square of a class's colour."""
    chance = np.random.default_rng(seed)
    base = np.full((size, size, 3), COLOURS[label], dtype=np.float64)
    return Image.fromarray(np.clip(base + chance.normal(0, 40, base.shape), 0, 255).astype(np.uint8))


def write_images(folder: Path, rows: int = 36, size: int = 16) -> Path:
    """A folder with a ``metadata.jsonl``: file_name, label, text and shop of each picture; three classes in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number in range(rows):
        label = list(COLOURS)[number % 3]
        name = f"{number:03d}.png"
        picture(label, number, size).save(folder / name)
        text = f"a {label} thing" if number % 4 else "a thing"
        entries.append({"file_name": name, "label": label, "text": text, "shop": "north" if number % 2 else "south"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def write_table(path: Path, rows: int = 60) -> Path:
    """A CSV with two classes that a line tells apart, a group column, and one column of noise."""
    chance = np.random.default_rng(0)
    lines = ["width,height,noise,label,site"]
    for number in range(rows):
        x, y, z = chance.normal(size=3)
        lines.append(f"{x:.4f},{y:.4f},{z:.4f},{'big' if x + y > 0 else 'small'},site {number % 6}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path
