"""One driver a study, where its storage has room for one: a lock that the system releases when its holder dies.

A database server has room for several drivers (`tune_lora.drivers`). They take turns where they write the same files.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tune_lora import storage_files
from tune_lora.errors import InputError

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
"""What a disk says that knows no locks, such as Lustre mounted without them."""


@contextmanager
def held(path: Path, what: str) -> Generator[None, None, None]:
    """Holds the lock file for the block.

    Raises:
        InputError: another process holds it, it cannot be written, or its disk knows no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a+")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); must be a file in a writable folder") from None
    with opened as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise InputError(f"{what} is running already (process {holder}); wait for it or stop it") from None
        except OSError as error:
            raise InputError(
                f"{path}: cannot be locked ({error.strerror}); must be on a disk with locks: mount it with them, or "
                "let `results` (and a SQLite `storage`) be elsewhere"
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


@contextmanager
def driving(storage: str, folder: Path, name: str) -> Generator[None, None, None]:
    """Keeps other drivers out of a study for the block, where its storage is a file: of its results folder, and of the
    file where that lies elsewhere.

    Raises:
        InputError: another process drives the study.
    """
    with ExitStack() as stack:
        if not storage_files.is_server(storage):
            for path in _locks(folder, storage_files.database_file(storage), name):
                stack.enter_context(held(path, f"study {name!r}"))
        yield


def _locks(folder: Path, file: Path | None, name: str) -> list[Path]:
    """Of the results folder, and of the database where that is another's study.db or holds several studies."""
    own = folder.resolve() / "lock"
    if file is None:
        return [own]
    file = file.resolve()
    other = file.with_name("lock" if file.name == "study.db" else f"{file.name}.{name}.lock")
    return [own] if other == own else [own, other]


@contextmanager
def turn(path: Path) -> Generator[None, None, None]:
    """Waits for the lock file and holds it for the block; on a disk without locks nobody waits.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
