"""Which faults of a database pass by themselves: locks and lost connections do, a full disk and a wrong password do
not. Pure functions of what was raised."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, TimeoutError  # noqa: A004 - SQLAlchemy's own

_SQLITE_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_IOERR}
_ADVICE = {
    "no password supplied": "; set TUNE_LORA_STORAGE_PASSWORD",
    "No module named 'psycopg": "; pip install 'tune-lora[postgresql]'",
}
_SQLITE_ADVICE = {sqlite3.SQLITE_FULL: "; make room"}
# SQLSTATE classes and codes of PostgreSQL, appendix A of its manual.
_LASTING_CLASSES = ("28", "3D", "3F", "42", "22", "23", "53100")
_STARTING_UP = ("57P03", "53300", "40001", "40P01", "55P03", "57P01", "57P02")
"""Cannot connect now, too many connections, serialization failure, deadlock, lock not available, shut down, crashed."""
_STARTING_WORDS = ("the database system is starting up", "the database system is shutting down", "too many clients")


def passes(error: BaseException, *, opened: bool = True) -> bool:
    """Whether it is worth asking again.

    `opened`: the storage has answered before, so that its address and password were right, and a connection that
    cannot be made is one that was lost.
    """
    found = _of_the_database(error)
    if isinstance(found, TimeoutError):  # no connection of the pool came free
        return True
    if not isinstance(found, DBAPIError):
        return False
    cause = found.orig
    if isinstance(cause, sqlite3.Error):
        return (getattr(cause, "sqlite_errorcode", 0) & 0xFF) in _SQLITE_PASSING
    state = str(getattr(cause, "sqlstate", None) or "")
    if state.startswith(_LASTING_CLASSES):
        return False
    if not opened:
        return state in _STARTING_UP or any(words in str(cause) for words in _STARTING_WORDS)
    return found.connection_invalidated or isinstance(found, OperationalError | InterfaceError)


def reason(error: BaseException) -> str:
    """What the database said, in one line, with what helps. May name a password: see `trainables.redaction`.

    SQLAlchemy's own text goes on with the statement and a link; what the database said is its cause.
    """
    found = _of_the_database(error)
    cause = getattr(found, "orig", None) or found
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    said = lines[0] if lines else type(cause).__name__
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    return said + _SQLITE_ADVICE.get(code, "") + next((more for words, more in _ADVICE.items() if words in said), "")


def _of_the_database(error: BaseException) -> BaseException:
    """SQLAlchemy's error, which Optuna wraps in one of its own that says nothing."""
    cause = error.__cause__
    return cause if cause is not None and not isinstance(error, DBAPIError | TimeoutError) else error
