"""Which of two copies of a study is to go on: the file of this machine, or the one in its mirror. The decision is
pure; around it the files are read and put in place.

Each driver that goes on with a study writes down that it does, and how many trials had ended by then. So two copies
tell how much they have in common, and each how much it has that the other one lacks.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import optuna

from tune_lora import store

_ENDED = "'COMPLETE', 'PRUNED', 'FAIL'"


@dataclass(frozen=True)
class Copy:
    """A copy of a study: `ended` trials; `runs` of drivers, each with the trials that had ended when it began; `token`
    tells the study from others of its name, None where it was never mirrored.
    """

    ended: int
    runs: tuple[tuple[str, int], ...] = ()
    token: str | None = None


def ahead(one: Copy, other: Copy) -> tuple[int, int]:
    """How many trials have ended in each of two copies that have not in the other, as far as they can tell."""
    common = _common(one, other)
    return one.ended - common, other.ended - common


def _common(one: Copy, other: Copy) -> int:
    if one.token != other.token:
        return 0  # not the same study
    shared = 0
    while shared < min(len(one.runs), len(other.runs)) and one.runs[shared][0] == other.runs[shared][0]:
        shared += 1
    # Of the last run that both know, each has what had ended when its next one began, or all that it has.
    return min(_after(one, shared), _after(other, shared))


def _after(copy: Copy, runs: int) -> int:
    return copy.runs[runs][1] if runs < len(copy.runs) else copy.ended


def read(file: Path, name: str) -> Copy | None:
    """The copy of a study that a SQLite file holds; None where it does not hold it.

    Raises:
        sqlite3.Error: it cannot be read as a study's.
    """
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute("SELECT study_id FROM studies WHERE study_name = ?", (name,)).fetchone()
        if found is None:
            return None
        ended = f"SELECT COUNT(*) FROM trials WHERE study_id = ? AND state IN ({_ENDED})"
        (count,) = connection.execute(ended, found).fetchone()
        attributes = "SELECT key, value_json FROM study_user_attributes WHERE study_id = ?"
        held = {key: text for key, text in connection.execute(attributes, found) if key in (store.MIRROR, store.RUNS)}
    runs = tuple((str(run), int(number)) for run, number in json.loads(held.get(store.RUNS, "[]")))
    token = json.loads(held[store.MIRROR]) if store.MIRROR in held else None
    return Copy(int(count), runs, token)


def begin(study: optuna.Study) -> None:
    """Writes down that a driver goes on with a study."""
    ended = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
    study.set_user_attr(store.RUNS, [*study.user_attrs.get(store.RUNS, []), [secrets.token_hex(4), ended]])


def set_aside(file: Path) -> None:
    """Keeps what a study's file holds beside it, under a name that is free."""
    number = 1
    while (aside := file.with_name(f"{file.name}.{number}")).exists():
        number += 1
    # Not renamed: what was written last may stand in the log beside it, which a reader may hold just now.
    with closing(sqlite3.connect(file)) as connection, closing(sqlite3.connect(aside)) as copy:
        connection.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")


def put_in_place(fetched: Path, file: Path) -> None:
    """Makes a fetched file the study's."""
    for tail in ("-wal", "-shm", "-journal"):  # of a file that is no more: SQLite would play them into this one
        file.with_name(f"{file.name}{tail}").unlink(missing_ok=True)
    fetched.replace(file)
