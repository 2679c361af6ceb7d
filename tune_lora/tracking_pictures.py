"""The pictures of a report one by one, out of the sheets that trials leave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.cells import cells_of

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 64
"""Pictures of one report, at most: a table in Weights & Biases is looked at, and one run's are uploaded in seconds."""


@dataclass(frozen=True)
class Picture:
    """One generated image; `seed` is None where the sheet does not say it, and `failed` whether it is black, flat or
    broken."""

    prompt: str
    seed: int | None
    failed: bool
    image: Image


def pictures(sheets: dict[str, str]) -> list[Picture]:
    """The images of a report's sheets (label to path). A sheet that does not say what is on it is one picture under its
    label; one that cannot be read is left out."""
    found: list[Picture] = []
    for label, path in sheets.items():
        found += _of_sheet(label, Path(path))
    return found[:MOST]


def _of_sheet(label: str, path: Path) -> list[Picture]:
    from PIL import Image

    try:
        with Image.open(path) as opened:
            cells, sheet = cells_of(opened.info, opened.size), opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises on broken files
        return []
    if not cells:
        return [Picture(label, None, False, sheet)]
    return [Picture(cell.label, cell.seed, cell.failed, sheet.crop(cell.box)) for cell in cells]
