"""How SQLite keeps a study on this disk, and with which options engines are made.

A driver writes a dozen small things a trial. SQLite's rollback journal waits for the disk two or three times for each;
its write-ahead log need not wait at all, and is whole after a power cut, though its last moments may be missing. What
must not be missing is which trials there are and how they ended: `sync` waits for the disk after those. Reports that
are lost are told again from the trial's folder.

The write-ahead log needs memory that all its readers share, which file systems of a network do not have: there the
rollback journal stays. When the driver is done, the file is one again that can be copied and read anywhere.
"""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy.engine import URL, Engine, make_url

_LOCK_SECONDS = 2.0  # that SQLite itself waits for a lock; then it is waited for aloud
_SERVER = {"pool_pre_ping": True, "pool_size": 2, "max_overflow": 4, "pool_timeout": 30}
# A server that is gone without a word (a cut network) is noticed in half a minute instead of two hours.
_POSTGRES = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "tune-lora",
}
LOCAL = frozenset({"apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "reiserfs"})
LOCAL |= {"tmpfs", "xfs", "zfs"}
"""File systems on which processes of one machine share memory of a file."""


class WriteAhead(sqlite3.Connection):
    """A connection that keeps the write-ahead log, where it can be had."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        try:
            mode = self.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError:  # somebody reads just now; the journal that is there is as safe, only slower
            return
        if mode == "wal":  # with a rollback journal NORMAL could corrupt the file
            self.execute("PRAGMA synchronous=NORMAL")


class Rollback(sqlite3.Connection):
    """A connection that keeps the rollback journal, also of a file that was written otherwise before."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.execute("PRAGMA journal_mode=DELETE")


def engine_options(url: str, *, drives: bool = False) -> dict[str, Any]:
    """Arguments of `sqlalchemy.create_engine`. `drives`: this process writes a study, and may choose the journal."""
    parsed = make_url(url)
    if is_server(url):
        return {**_SERVER, "connect_args": dict(_POSTGRES) if parsed.drivername.endswith("+psycopg") else {}}
    options: dict[str, Any] = {"timeout": _LOCK_SECONDS}
    file = database_file(parsed)
    if drives and file is not None:
        options["factory"] = WriteAhead if is_local(file) else Rollback
    return {"connect_args": options}


def is_server(url: str) -> bool:
    """Whether the database is one that many processes may write at a time."""
    return url.partition(":")[0].partition("+")[0] != "sqlite"


def database_file(url: URL | str) -> Path | None:
    """The file of a SQLite URL; None for a server or memory."""
    if is_server(str(url)):
        return None
    held = make_url(url).database
    return None if not held or held.startswith((":memory:", "file:")) else Path(held)


def is_local(path: Path, mounts: str | None = None) -> bool:
    """Whether a path lies on a disk of this machine. `mounts` is the text of ``/proc/self/mounts``.

    What cannot be told counts as a network's.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text(errors="replace")
        except OSError:
            return False
    place = path.resolve()
    # The last of several mounts on one folder is the one that is seen.
    found = [(Path(point), kind) for point, kind in _mounted(mounts) if place.is_relative_to(point)]
    deepest = max((len(point.parts) for point, _ in found), default=0)
    return next((kind in LOCAL for point, kind in reversed(found) if len(point.parts) == deepest), False)


def _mounted(mounts: str) -> list[tuple[str, str]]:
    """Mount point and kind of each line; blanks in names stand there as octal numbers."""
    fields = [line.split(" ") for line in mounts.splitlines()]
    return [(one[1].encode().decode("unicode_escape"), one[2]) for one in fields if len(one) > 2]


def sync(engine: Engine) -> None:
    """Waits until the disk has what was written, where the write-ahead log has not waited already."""
    file = database_file(engine.url)
    if file is None:
        return
    try:
        log = os.open(f"{file}-wal", os.O_RDONLY)
    except FileNotFoundError:
        return  # the rollback journal waits with each write
    try:
        os.fsync(log)
    finally:
        os.close(log)


_flusher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="flush")
_waiting: set[Engine] = set()


def sync_soon(engine: Engine) -> None:
    """`sync` in the background: a driver need not wait for the disk. The log is a sequence, so what is written later is
    never there without what was written before. A disk that fails is noticed by SQLite itself at its next write.
    """
    if database_file(engine.url) is not None and engine not in _waiting:
        _waiting.add(engine)
        _flusher.submit(_flush, engine)


def _flush(engine: Engine) -> None:
    _waiting.discard(engine)  # before, so that what is written while the disk works is waited for as well
    sync(engine)


def close(engine: Engine) -> None:
    """Closes an engine's connections; a SQLite file becomes one file again, unless somebody still reads it."""
    engine.dispose()
    file = database_file(engine.url)
    if file is None or not file.is_file():
        return
    try:
        with closing(sqlite3.connect(file, timeout=0)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError:  # locked or read-only: it can be read as it is
        return


def backup(engine: Engine, target: Path) -> None:
    """Copies a SQLite database to a file, consistent while it is written.

    Raises:
        sqlite3.Error, OSError: it cannot be copied.
    """
    with engine.connect() as connection, closing(sqlite3.connect(target)) as copy:
        held = connection.connection.driver_connection
        assert isinstance(held, sqlite3.Connection)
        held.backup(copy)
    with closing(sqlite3.connect(target)) as copy:
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, not three


def writes_through(engine: Engine) -> str:
    """The journal of a SQLite engine (``wal``, ``delete``), for whoever wants to know."""
    with engine.connect() as connection:
        return str(connection.execute(sqlalchemy.text("PRAGMA journal_mode")).scalar())
