"""Whether a worker sees the results folder of the driver, and not one of the same name on a disk of its own.

A trial makes its folder where it is missing, so on a node that shares no disk with the driver it would train, and keep
checkpoints and LoRA where nobody finds them. The driver therefore leaves a *mark* while it runs: an empty file with a
random name, which no other disk has, and which no network file system can remember from before.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trainables.ray_adapter import Lost

PATIENCE_SECONDS = 5.0
_RETRY_SECONDS = 0.5


@contextmanager
def marked(folder: Path) -> Generator[Path, None, None]:
    """The mark of a driver in the results folder of a study, for the duration of the block.

    Each driver has its own; one that a killed driver leaves behind is of no meaning to others.

    Raises:
        OSError: it cannot be written.
    """
    mark = folder.absolute() / "logs" / f".here-{secrets.token_hex(16)}"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch(exist_ok=False)
    try:
        yield mark
    finally:
        with suppress(OSError):  # the disk is gone, and with it the mark
            mark.unlink(missing_ok=True)


def folder_of(mark: Path) -> Path:
    """The results folder that a mark stands for."""
    return mark.parent.parent


def on_shared(trainable: Any, mark: Path | None) -> Any:
    """A class of `trainables.ray_adapter.trainable_for` whose trials begin only where `mark` is seen; as it is where
    there is none (nodes that share no folder have a mirror)."""
    return trainable if mark is None else _on_shared(trainable, mark)


def _on_shared(trainable: Any, mark: Path) -> Any:
    class OnShared(trainable):
        def _take_over(self) -> None:
            if not sees(mark):
                raise Lost(
                    f"node {socket.gethostname()} does not see the results folder {folder_of(mark)} of the driver; "
                    "must be one folder that all nodes share"
                )
            super()._take_over()

    OnShared.__name__ = trainable.__name__
    return OnShared


def sees(mark: Path, patience: float | None = None) -> bool:
    """Whether a mark is seen here; a share may need some seconds to show what was just written elsewhere.

    Raises:
        OSError: the share does not answer.
    """
    give_up = time.monotonic() + (PATIENCE_SECONDS if patience is None else patience)
    while not mark.exists():
        if time.monotonic() > give_up:
            return False
        time.sleep(_RETRY_SECONDS)
        with suppress(FileNotFoundError, NotADirectoryError):
            os.scandir(mark.parent).close()  # asks the server again
    return True
