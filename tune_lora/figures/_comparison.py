"""The untrained base, the winner and real images in one picture."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from trainables.paths import inside
from tune_lora import atomic
from tune_lora.store import StudyRecord

NAME = "comparison.png"
GAP = 8
"""Pixels between two grids."""


def comparison(record: StudyRecord, folder: Path) -> Path | None:
    """Stacks the base's images, the winner's last ones and the reference images as ``comparison.png``.

    `folder` is the results folder that the record's paths count from. None where there is no winner with images, or no
    base beside which to show it.
    """
    best = record.winner
    if best is None or not best.images or not record.base_images:
        return None
    winner = next(iter(best.images[max(best.images)].values()))
    names = [record.base_images.get("base"), winner, record.base_images.get("reference")]
    grids = [grid for name in names if name and (grid := _read(folder, name)) is not None]
    if len(grids) < 2:
        return None
    width, height = max(grid.width for grid in grids), sum(grid.height for grid in grids) + GAP * (len(grids) - 1)
    canvas = Image.new("RGB", (width, height), "white")
    top = 0
    for grid in grids:
        canvas.paste(grid, (0, top))
        top += grid.height + GAP
    with atomic.replacing(folder / NAME) as scratch:
        canvas.save(scratch, "PNG", optimize=True)
    return folder / NAME


def _read(folder: Path, name: str) -> Image.Image | None:
    # The name is out of a database that anyone may have written: nothing outside the study's folder is shown.
    if (path := inside(folder, name)) is None:
        return None
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (FileNotFoundError, UnidentifiedImageError, OSError):
        return None
