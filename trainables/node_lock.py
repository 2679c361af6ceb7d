"""What several trials of a node need is made by one of them while the others wait: a lock that the system releases when
its holder dies, so that none is ever stale.

It holds across nodes as well where the cache lies on a shared disk whose locks work (NFS has them). Where a disk has no
locks at all everybody goes on at once: entries are written whole, so that work is done twice and nothing is damaged.
"""

from __future__ import annotations

import errno
import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from trainables.paths import cache_folder

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
_LOOK_SECONDS = 0.2
_held: set[Path] = set()
"""By this process."""
_mine = threading.local()


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Holds the lock of an entry of the cache for the block; waits for whoever holds it, unless that is the same
    thread."""
    mine = _mine.__dict__.setdefault("held", set())
    if path in mine:
        yield
        return
    with _opened(path) as lock:
        if lock is not None:
            _take(lock, fcntl.LOCK_EX)
        mine.add(path)
        try:
            yield
        finally:
            mine.discard(path)


@contextmanager
def alone(path: Path, meanwhile: Callable[[], None]) -> Iterator[None]:
    """The same for work that pauses, such as a training between its reports.

    `meanwhile` is called while another is waited for, and may raise. A process never waits for itself: two trainings
    that it goes on with by turns would wait for ever.
    """
    if path in _held:
        yield
        return
    with _opened(path) as lock:
        while lock is not None and not _take(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            meanwhile()
            time.sleep(_LOOK_SECONDS)
        _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)


@contextmanager
def _opened(path: Path) -> Iterator[IO[str] | None]:
    """The file of a lock; None where the cache can only be read, and so nobody writes to it."""
    folder = cache_folder() / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / f"{path.parent.name}-{path.name}.lock").open("w")  # NFS locks only what can be written
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        yield None
        return
    with lock:
        yield lock


def _take(lock: IO[str], how: int) -> bool:
    """Whether it is taken; False where somebody else has it."""
    try:
        fcntl.flock(lock, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
