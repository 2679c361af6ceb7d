"""Files that are whole or absent."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Lets `write` fill a scratch file beside `path`, then renames it; after an error nothing is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(
        f".{path.stem}-{os.getpid()}-{uuid.uuid4().hex[:6]}.part{path.suffix}"  # nodes may share the folder
    )  # writers choose their format by the suffix
    try:
        write(scratch)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path
