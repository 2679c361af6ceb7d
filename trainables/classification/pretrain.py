"""Pre-trains the narrow ResNet on images that are drawn as it goes: small data sets need not start from nothing.

python -m trainables.classification.pretrain --output resnet_mini.safetensors [--minutes 10] [--image-size 64]

Every image is new: one of ten shapes in one of eight hues and six textures, turned, over another texture. The network
is asked for all of it: shape, hue and texture of what is in front, texture of what is behind, and the angle.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from trainables.classification.backbones import ResNetMini
from trainables.classification.drawing import HUES, SHAPES, TEXTURES, colour, mask, textured
from trainables.classification.pixels import IMAGENET, normalised

QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "shape": tuple(SHAPES),
    "hue": tuple(HUES),
    "texture": tuple(TEXTURES),
    "background": tuple(TEXTURES),
}
"""What is asked of every image, and the answers; the angle (twelve sectors of a full turn) is asked as well."""
SECTORS = 12
WIDTHS = "16_32_64_128"


def draw(chance: np.random.Generator, size: int) -> tuple[np.ndarray, list[int]]:
    """An image ``(size, size, 3)`` uint8 and the answers to the questions, the angle last."""
    answers = [int(chance.integers(len(names))) for names in QUESTIONS.values()]
    shape, hue, texture, background = (names[place] for names, place in zip(QUESTIONS.values(), answers, strict=True))
    angle = float(chance.uniform(0, 360))
    inside = _filling(chance, texture, size, HUES[hue] + float(chance.normal(0, 0.015)), float(chance.uniform(0.55, 1)))
    behind = _filling(chance, background, size, float(chance.random()), float(chance.uniform(0, 0.4)))
    centre = size * (0.5 + chance.uniform(-0.18, 0.18, 2))
    radius = size * float(chance.uniform(0.22, 0.42))
    share = mask(shape, size, (float(centre[0]), float(centre[1])), radius, angle)[:, :, None]
    pixels = behind * (1 - share) + inside * share + chance.normal(0, float(chance.uniform(2, 16)), inside.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8), [*answers, int(angle / 360 * SECTORS) % SECTORS]


def _filling(chance: np.random.Generator, texture: str, size: int, hue: float, saturation: float) -> np.ndarray:
    dark = colour(hue + float(chance.normal(0, 0.02)), saturation, float(chance.uniform(0.25, 0.6)))
    light = colour(hue, saturation, float(chance.uniform(0.7, 1)))
    period = size * float(chance.uniform(0.12, 0.3))
    return textured(texture, size, period, float(chance.uniform(0, 180)), dark, light)


def batch(seed: int, count: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``(count, 3, size, size)`` uint8 and answers ``(count, questions)``: the same seed gives the same."""
    drawn = [draw(chance, size) for chance in np.random.default_rng(seed).spawn(count)]
    images = torch.from_numpy(np.stack([pixels for pixels, _ in drawn])).permute(0, 3, 1, 2)
    return images, torch.tensor([answers for _, answers in drawn])


class Student(nn.Module):
    """The backbone, and one linear answer a question."""

    def __init__(self, widths: str = WIDTHS) -> None:
        super().__init__()
        sizes = [int(width) for width in widths.split("_")]
        self.backbone = ResNetMini(sizes)
        answers = [*(len(names) for names in QUESTIONS.values()), SECTORS]
        self.answers = nn.ModuleList(nn.Linear(sizes[-1], count) for count in answers)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Scores of the answers, a tensor ``(n, answers)`` for each question."""
        features = self.backbone(images)
        return [one(features) for one in self.answers]


def accuracy(student: Student, *, seed: int, count: int, size: int) -> dict[str, float]:
    """Share of right answers to each question, on images of their own."""
    images, answers = batch(seed, count, size)
    student.eval()
    with torch.no_grad():
        told = student(normalised(images, *IMAGENET, torch.device("cpu")))
    return {
        name: float((scores.argmax(dim=1) == answers[:, place]).float().mean())
        for place, (name, scores) in enumerate(zip([*QUESTIONS, "angle"], told, strict=True))
    }


def train(student: Student, *, steps: int, batch_size: int, size: int, rate: float, minutes: float) -> int:
    """Trains for `steps` batches of new images with a cosine to zero, or to the end of the time; returns its steps."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=rate, weight_decay=1e-4)
    started = time.monotonic()
    student.train()
    for step in range(steps):
        spent = max(step / steps, (time.monotonic() - started) / (60 * minutes))
        if spent >= 1:
            return step
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * spent))
        images, answers = batch(step, batch_size, size)
        told = student(normalised(images, *IMAGENET, torch.device("cpu")))
        loss = torch.stack([F.cross_entropy(scores, answers[:, place]) for place, scores in enumerate(told)]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return steps


def save(student: Student, output: Path, card: Mapping[str, object]) -> None:
    """Writes the backbone in torchvision's names (``.safetensors``, or ``.pth`` for ``torch.load``) and its card."""
    state = {name: value.contiguous() for name, value in student.backbone.state_dict().items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(state, output)
    else:
        torch.save(state, output)
    output.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m trainables.classification.pretrain")
    parser.add_argument("--output", type=Path, required=True, help=".safetensors or .pth")
    parser.add_argument("--minutes", type=float, default=10.0, help="at most")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--widths", default=WIDTHS)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    torch.manual_seed(asked.seed)
    student = Student(asked.widths)
    started = time.monotonic()
    shape = {"batch_size": asked.batch_size, "size": asked.image_size}
    steps = train(student, steps=asked.steps, rate=2e-3, minutes=asked.minutes, **shape)
    card = {
        "architecture": "resnet_mini",
        "widths": asked.widths,
        "image_size": asked.image_size,
        "normalisation": "imagenet",
        "images": steps * asked.batch_size,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "accuracy": accuracy(student, seed=2**31 + asked.seed, count=1000, size=asked.image_size),
    }
    save(student, asked.output, card)
    print(json.dumps(card, indent=2))  # noqa: T201  # what the command is asked for


if __name__ == "__main__":
    main()
