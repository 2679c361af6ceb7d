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


@dataclass(frozen=True)
class Picture:
    """An image as a data URI with its caption; `uri` is empty where the file is missing or broken."""

    label: str
    uri: str


@dataclass(frozen=True)
class Gallery:
    """One trial's images. `number` is None for the untrained base."""

    title: str
    number: int | None
    pictures: tuple[Picture, ...]


def data_uri(path: Path, longest: int, *, lossless: bool = False) -> str:
    """An image file as a WebP data URI, no side longer than `longest`; empty where it cannot be read."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGBA" if "A" in opened.getbands() else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises on broken files
        return ""
    image.thumbnail((longest, longest))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85, lossless=lossless)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def embedded(path: Path, label: str) -> Picture:
    """One figure, to be shown as it is."""
    return Picture(label, data_uri(path, FIGURE, lossless=True))


def figures(folder: Path) -> list[Picture]:
    """The figures that lie in a folder: those of every study first, in their usual order."""
    usual: dict[str, int] = {kind: at for at, kind in enumerate(ALL_KINDS)}

    def place(path: Path) -> tuple[int, str]:
        # A picture of one of several objectives is called <kind>.<objective>.png.
        return usual.get(path.name.partition(".")[0], len(usual)), path.name

    paths = sorted(folder.glob("*.png"), key=place)
    return [
        Picture(path.stem.replace("_", " ").replace(".", ": "), data_uri(path, FIGURE, lossless=True)) for path in paths
    ]


def top_galleries(record: StudyRecord, folder: Path, n: int) -> list[Gallery]:
    """The newest images of the best `n` trials that have any."""
    with_images = [trial for trial in record.ranked() if trial.images][:n]
    return [
        Gallery(f"Trial {trial.number}, {wording.scored(record, trial)}", trial.number, _newest(trial, folder))
        for trial in with_images
    ]


def base_beside_best(record: StudyRecord, folder: Path) -> list[Gallery]:
    """The untrained base's images and the winner's, in the same order where their labels agree; empty without both."""
    best = record.best
    if best is None or not best.images or not record.base_images:
        return []
    winners = best.images[max(best.images)]
    shared = [label for label in winners if label in record.base_images]
    order = shared or list(winners)
    base = {label: record.base_images[label] for label in shared} or record.base_images
    return [
        Gallery("Untrained base", None, _pictures(base, folder)),
        Gallery(f"Winner, trial {best.number}", best.number, _pictures({k: winners[k] for k in order}, folder)),
    ]


def _newest(trial: TrialRecord, folder: Path) -> tuple[Picture, ...]:
    return _pictures(trial.images[max(trial.images)], folder)


def _pictures(paths: Mapping[str, str], folder: Path) -> tuple[Picture, ...]:
    some = list(paths.items())[:PER_TRIAL]
    return tuple(Picture(label, _inside(folder, relative)) for label, relative in some)


def _inside(folder: Path, relative: str) -> str:
    # Paths come out of a database that anyone may have written: nothing outside the study's folder is embedded.
    path = inside(folder, relative)
    return data_uri(path, THUMBNAIL) if path is not None else ""
