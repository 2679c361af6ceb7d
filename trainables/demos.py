"""Data of the demos: drawn into the cache of each node that needs them, once, by whoever comes first."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from trainables import demo_character, demo_logbook
from trainables.classification import demo as demo_shapes
from trainables.node_lock import only_one
from trainables.paths import cache_folder

_WRITERS: dict[str, Callable[[Path], object]] = {
    f"demo-character-{demo_character.VERSION}": demo_character.write_dataset,
    f"demo-logbook-{demo_logbook.VERSION}.jsonl": demo_logbook.write_dataset,
    f"demo-shapes-{demo_shapes.VERSION}": demo_shapes.write_dataset,
}


def path_of(demo: str) -> Path:
    """Where the data of ``demo-character``, ``demo-logbook`` or ``demo-shapes`` lie on this node; drawn where they did
    not."""
    return at_hand(cache_folder() / next(name for name in _WRITERS if name.startswith(f"{demo}-")))


def at_hand(path: Path) -> Path:
    """The same path. Data of a demo are drawn first where this node lacks them, since the driver found them in its own
    cache."""
    write = _WRITERS.get(path.name)
    if write is None or path.exists():
        return path
    with only_one(path):
        if not path.exists():  # drawn by another process while this one waited
            _write(path, write)
    return path


def _write(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        write(scratch / path.name)
        (scratch / path.name).rename(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
