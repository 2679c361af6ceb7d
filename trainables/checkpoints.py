"""A trial's newest checkpoint on disk: written whole or not at all, the older one removed only afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

FOLDER = "checkpoint"


def write(trial_folder: Path, budget: int, save: Callable[[Path], None]) -> Path:
    """Writes ``checkpoint/<budget>/`` through `save` and removes older ones; returns the folder."""
    root = trial_folder / FOLDER
    target, scratch = root / f"{budget:08d}", root / f"{budget:08d}.part"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    save(scratch)
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)
    for older in root.iterdir():
        if older != target:
            shutil.rmtree(older, ignore_errors=True)
    return target


def newest(trial_folder: Path) -> Path | None:
    """The newest whole checkpoint of a trial, or None."""
    root = trial_folder / FOLDER
    if not root.is_dir():
        return None
    return max((path for path in root.iterdir() if path.name.isdigit()), key=lambda path: int(path.name), default=None)


def note(trial_folder: Path) -> str:
    """What to add to the message of a trial that failed: where it could go on from."""
    found = newest(trial_folder)
    return f"; the last good checkpoint is {found.relative_to(trial_folder)}" if found is not None else ""


def budget_of(checkpoint: Path) -> int:
    """The budget that a checkpoint folder stands at."""
    return int(checkpoint.name)
