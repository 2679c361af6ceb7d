"""Images as text that a web page holds in itself, bounded in size and number."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from trainables.paths import inside
from tune_lora import wording
from tune_lora.figures import ALL_KINDS
from tune_lora.store import StudyRecord, TrialRecord

THUMBNAIL = 720
"""Longest side of an embedded trial image, pixels: a trial shows one grid of its images an evaluation."""
FIGURE = 1600
"""Longest side of an embedded figure, pixels."""
PER_TRIAL = 8
"""Images shown of one trial: one evaluation's."""
_REAL = "reference"
"""What a trainer calls its sheet of real images, beside those of the untrained base."""


@dataclass(frozen=True)
class Picture:
    """An image as a data URI with its caption; `uri` is empty where the file is missing or broken.

    `width` and `height` in pixels keep its place in the page free until it is shown, so that nothing below it moves.
    """

    label: str
    uri: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Gallery:
    """One trial's images. `number` is None for the untrained base."""

    title: str
    number: int | None
    pictures: tuple[Picture, ...]


def embedded(path: Path, label: str, longest: int, *, lossless: bool = False, quality: int = 85) -> Picture:
    """An image file as WebP, no side longer than `longest`."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGBA" if "A" in opened.getbands() else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises on broken files
        return Picture(label)
    image.thumbnail((longest, longest))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, lossless=lossless)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(label, f"data:image/webp;base64,{text}", *image.size)


def figure(path: Path, label: str) -> Picture:
    """One figure, to be shown as it is."""
    return embedded(path, label, FIGURE, lossless=True)


def figures(folder: Path) -> list[Picture]:
    """The figures that lie in a folder: those of every study first, in their usual order."""
    usual: dict[str, int] = {kind: at for at, kind in enumerate(ALL_KINDS)}

    def place(path: Path) -> tuple[int, str]:
        # A picture of one of several objectives is called <kind>.<objective>.png.
        return usual.get(path.name.partition(".")[0], len(usual)), path.name

    paths = sorted(folder.glob("*.png"), key=place)
    return [figure(path, path.stem.replace("_", " ").replace(".", ": ")) for path in paths]


def top_galleries(record: StudyRecord, folder: Path, n: int) -> list[Gallery]:
    """The newest images of the best `n` trials that have any."""
    with_images = [trial for trial in record.ranked() if trial.images][:n]
    return [
        Gallery(f"Trial {trial.number}, {wording.scored(record, trial)}", trial.number, _newest(trial, folder))
        for trial in with_images
    ]


def base_beside_best(record: StudyRecord, folder: Path) -> list[Gallery]:
    """The untrained base's images, the winner's and real ones, in the same order where labels agree; empty without the
    first two."""
    best = record.winner
    if best is None or not best.images or not record.base_images:
        return []
    winners = best.images[max(best.images)]
    shared = [label for label in winners if label in record.base_images]
    real = {} if shared else {k: path for k, path in record.base_images.items() if k == _REAL}
    base = {label: record.base_images[label] for label in shared or record.base_images if label not in real}
    winning = {label: winners[label] for label in shared or winners}
    galleries = [
        Gallery("Untrained base", None, _pictures(base, folder)),
        Gallery(f"Winner, trial {best.number}", best.number, _pictures(winning, folder)),
    ]
    return [*galleries, Gallery("Held-out images", None, _pictures(real, folder))] if real else galleries


def _newest(trial: TrialRecord, folder: Path) -> tuple[Picture, ...]:
    return _pictures(trial.images[max(trial.images)], folder)


def _pictures(paths: Mapping[str, str], folder: Path) -> tuple[Picture, ...]:
    some = list(paths.items())[:PER_TRIAL]
    return tuple(of_study(folder, relative, label, THUMBNAIL) for label, relative in some)


def of_study(folder: Path, relative: str, label: str, longest: int, quality: int = 85) -> Picture:
    """An image that a study's record names, shrunk; a gap where it lies outside the study's folder."""
    # Paths come out of a database that anyone may have written.
    path = inside(folder, relative)
    return Picture(label) if path is None else embedded(path, label, longest, quality=quality)
