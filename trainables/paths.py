"""Where caches live. Loads nothing but the standard library."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``TUNE_LORA_CACHE``, else ``tune-lora`` under the user's cache folder. May not exist yet."""
    if chosen := os.environ.get("TUNE_LORA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tune-lora"
