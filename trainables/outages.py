"""Which errors are the machine's and not the trainer's: a full disk, a lost share."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

_NUMBERS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS),
        *(errno.EREMOTEIO, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.ESHUTDOWN, errno.ENOLINK),
    }
)
_WORDS = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS))
"""How libraries say it that make errors of their own: safetensors, SQLite ("disk is full"), torch."""
_MORE_WORDS = ("database or disk is full", "disk I/O error", "attempt to write a readonly database")
PROBE_BYTES = 64 * 1024


def of_storage(error: BaseException) -> str | None:
    """What a disk or share said, where that is why an error was raised; else None."""
    for one in _causes(error):
        if isinstance(one, OSError) and one.errno in _NUMBERS:
            return f"{one.strerror}: {one.filename}" if one.filename else str(one.strerror)
        text = str(one)
        if (word := next((word for word in (*_WORDS, *_MORE_WORDS) if word in text), None)) is not None:
            return word
    return None


def of_folder(folder: Path) -> str | None:
    """Why nothing can be written into a folder just now, or None: it is tried."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        with probe.open("wb") as stream:
            stream.write(b"\0" * PROBE_BYTES)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error.strerror
    finally:
        _forget(probe)
    return None


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the share is gone, and with it the probe


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from or while handling, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__]
