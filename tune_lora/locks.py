"""One driver a study: a lock that the system releases when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tune_lora.errors import InputError


@contextmanager
def held(path: Path, what: str) -> Generator[None, None, None]:
    """Holds the lock file for the block.

    Raises:
        InputError: another process holds it, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a+")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); must be a file in a writable folder") from None
    with opened as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise InputError(f"{what} is running already (process {holder}); wait for it or stop it") from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
