"""What is on a sheet of images, kept in the PNG itself: whoever has the file can take the images apart again.

Pure; the standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

KEY = "tune_lora_cells"
"""Name of the text chunk that holds them."""


@dataclass(frozen=True)
class Cell:
    """One image of a sheet. `box` is left, top, right, bottom in pixels; `seed` is None where it has none."""

    label: str
    box: tuple[int, int, int, int]
    seed: int | None = None
    failed: bool = False


def as_text(cells: Iterable[Cell]) -> str:
    """Cells as the text that a sheet holds."""
    return json.dumps([asdict(cell) for cell in cells])


def cells_of(info: Mapping[Any, Any], size: tuple[int, int]) -> list[Cell]:
    """The cells that an opened PNG's `info` tells, in order; empty where it tells none, or what lies outside `size`."""
    try:
        found = [_cell(told) for told in json.loads(info.get(KEY, "[]"))]
    except (TypeError, ValueError, KeyError):  # a sheet of somebody else's
        return []
    return found if all(_is_inside(cell.box, size) for cell in found) else []


def _cell(told: Mapping[str, Any]) -> Cell:
    left, top, right, bottom = (int(edge) for edge in told["box"])
    seed = told.get("seed")
    return Cell(
        str(told["label"]), (left, top, right, bottom), None if seed is None else int(seed), bool(told.get("failed"))
    )


def _is_inside(box: tuple[int, int, int, int], size: tuple[int, int]) -> bool:
    left, top, right, bottom = box
    return 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
