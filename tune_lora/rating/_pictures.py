"""Pictures of trials as a rater may see them: out of the study's trials only, without a trace of whose they are."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

from PIL import Image

from trainables.lora.sheet import without_heading
from trainables.paths import inside
from tune_lora.store import TrialRecord

LONGEST = 1600
"""Longest side of a shown picture, pixels."""
PER_TRIAL = 8
"""Pictures shown of one trial."""


def newest(trial: TrialRecord, folder: Path) -> tuple[Path, ...]:
    """The files of a trial's last evaluation, those that lie inside of the study's trials; empty where there are none.

    They are named by a database that anyone may have written.
    """
    if not trial.images:
        return ()
    named = list(trial.images[max(trial.images)].values())[:PER_TRIAL]
    found = [_of_a_trial(folder, relative) for relative in named]
    return tuple(path for path in found if path is not None)


def _of_a_trial(folder: Path, relative: str) -> Path | None:
    path, trials = inside(folder, relative), inside(folder, "trials")
    is_there = path is not None and trials is not None and path.is_relative_to(trials) and path.is_file()
    return path if is_there else None


@lru_cache(maxsize=64)
def shown(path: Path, *, is_sheet: bool) -> bytes | None:
    """A picture as PNG, drawn anew so that nothing in the file but its pixels is told; None where it cannot be read.

    `is_sheet`: it is a trial's grid, whose heading names the trial and is cut off.
    """
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises on broken files
        return None
    image = without_heading(image) if is_sheet else image
    image.thumbnail((LONGEST, LONGEST))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
