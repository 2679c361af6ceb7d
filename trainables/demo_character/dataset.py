"""Poses, their captions, and a folder of captioned images in the form that LoRA trainers read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.demo_character.face import Expression
from trainables.demo_character.render import Camera, draw

EXPRESSIONS: Mapping[str, Expression] = {
    "happy smile": Expression("open", "open", "smile", blush=0.6),
    "concerned expression": Expression("open", "open", "frown", brow=0.55, brow_height=0.06, blush=0.2),
    "surprised expression": Expression("wide", "wide", "round", brow=0.1, brow_height=0.16, blush=0.3),
    "sleepy expression": Expression("lid", "lid", "small"),
    "angry expression": Expression("glare", "glare", "line", brow=-0.75, brow_height=-0.06, blush=0.2),
    "winking": Expression("arc", "open", "smirk", blush=0.6),
    "big laugh": Expression("arc", "arc", "laugh", blush=0.6),
    "heart eyes": Expression("heart", "heart", "smirk", blush=0.7),
}
"""What a caption may say of the face."""

VIEWS: Mapping[str, tuple[float, float]] = {
    "frontal view": (0.0, 0.0),
    "three-quarter view": (-30.0, 4.0),
    "side view": (-60.0, 3.0),
    "view from above": (0.0, 33.0),
    "three-quarter view from the right": (30.0, 4.0),
    "view from below": (0.0, -24.0),
}
"""What a caption may say of the view: yaw and pitch in degrees."""

STYLE = "3d render, white background"
KOHYA_CONFIG = """\
# Dataset in kohya's form; paths are relative to this file's folder.
[general]
shuffle_caption = true
caption_extension = ".txt"
keep_tokens = 1

[[datasets]]
resolution = 64
batch_size = 4
enable_bucket = false

  [[datasets.subsets]]
  image_dir = "."
  num_repeats = 1
"""


@dataclass(frozen=True)
class Pose:
    """One picture: what its caption says, and the camera that shows it."""

    view: str
    expression: str
    camera: Camera


def caption(name: str, pose: Pose) -> str:
    """For example ``bobo, three-quarter view, happy smile, 3d render, white background``."""
    return f"{name}, {pose.view}, {pose.expression}, {STYLE}"


def poses(count: int, seed: int = 0) -> list[Pose]:
    """`count` poses that go through every pair of view and expression in turn, each a little off its view by chance.

    The first six differ in both; the first 48 are all the pairs.

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}, must be at least 1")
    chance = np.random.default_rng(seed)
    views, expressions = list(VIEWS), list(EXPRESSIONS)
    pairs = [
        (views[i % len(views)], expressions[(i // len(views) + i) % len(expressions)])
        for i in range(len(views) * len(expressions))
    ]
    return [Pose(*pairs[i % len(pairs)], _camera(pairs[i % len(pairs)][0], chance)) for i in range(count)]


def _camera(view: str, chance: np.random.Generator) -> Camera:
    yaw, pitch = VIEWS[view]
    turn, nod, roll, light = chance.normal(0, (4, 2.5, 2.5, 0.08)).tolist()
    return Camera(yaw + turn, pitch + nod, roll, (-0.55 + light, 0.75, 0.75))


def write_dataset(folder: Path, count: int = 48, seed: int = 0, name: str = "bobo", size: int = 128) -> None:
    """Writes `count` PNGs (`size` x `size` pixels), a caption each (``.txt``) and a ``dataset.toml`` into `folder`.

    The folder is made if need be; files of the same names are replaced. The same arguments give the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, pose in enumerate(poses(count, seed)):
        stem = f"{name}_{number:03d}"
        draw(EXPRESSIONS[pose.expression], pose.camera, size).save(folder / f"{stem}.png")
        (folder / f"{stem}.txt").write_text(caption(name, pose) + "\n", encoding="utf-8")
    (folder / "dataset.toml").write_text(KOHYA_CONFIG, encoding="utf-8")
