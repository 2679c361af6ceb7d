"""Where caches live, and which paths lead out of where they must stay. Loads nothing but the standard library."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``TUNE_LORA_CACHE``, else ``tune-lora`` under the user's cache folder. May not exist yet."""
    if chosen := os.environ.get("TUNE_LORA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tune-lora"


def inside(folder: Path, name: str | Path) -> Path | None:
    """The file of `folder` that is called `name`; None where it lies outside, by ``..``, as an absolute path, or behind
    a symbolic link. It need not exist."""
    try:
        path = (folder / name).resolve()
    except (ValueError, OSError, RuntimeError):  # a null byte, a link to itself
        return None
    return path if path.is_relative_to(folder.resolve()) else None
