"""What raters answered: appended line by line to ``ratings.jsonl`` in the results folder, and kept in the study.

A line is written whole, by one call, and is on the disk before the next pair is shown. Nothing is ever changed: taking
an answer back is a line as well. Several programs may append to one file.
"""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainables import json_text
from tune_lora import preferences, store
from tune_lora.errors import InputError
from tune_lora.preferences import Choice, Judgement
from tune_lora.storage import patient

FILE = "ratings.jsonl"
LONGEST_NAME = 40
_NAME = re.compile(rf"[^\W_][\w .@-]{{0,{LONGEST_NAME - 1}}}")


def checked_name(name: str) -> str:
    """The name of a rater.

    Raises:
        InputError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"--rater: got {name!r}; must be a name of 1 to {LONGEST_NAME} letters, digits, blanks, '.', '-', '_', '@'"
        )
    return name


class Ratings:
    """The file of a study's ratings. It need not exist."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def judge(self, left: int, right: int, choice: Choice, rater: str, **more: Any) -> str:
        """Writes an answer down; returns the name of the line. `more` is kept beside it.

        Raises:
            OSError: it could not be written; then it was not.
        """
        return self._append({"rater": rater, "left": left, "right": right, "choice": choice, **more})

    def undo(self, rater: str) -> Judgement | None:
        """Takes the rater's last answer back that stands; returns it, or None where there is none."""
        mine = [one for one in self.judgements() if one.rater == rater]
        if not mine:
            return None
        self._append({"rater": rater, "undo": mine[-1].key})
        return mine[-1]

    def judgements(self) -> list[Judgement]:
        """The answers that stand, in order."""
        return [one for one in map(preferences.judgement, self.standing()) if one is not None]

    def standing(self) -> list[Mapping[str, Any]]:
        """Their lines.

        Raises:
            InputError: a line is no judgement.
        """
        lines = self.lines()
        gone = _undone(lines)
        return [line for line in lines if "undo" not in line and line["id"] not in gone]

    def lines(self) -> list[Mapping[str, Any]]:
        """Everything that was written, in order. The beginning of a line that a power cut left at the end is no line.

        Raises:
            InputError: a line is no judgement.
        """
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return []
        whole = text.split(b"\n")[:-1]
        return [self._line(line, number) for number, line in enumerate(whole, start=1) if line.strip()]

    def _line(self, line: bytes, number: int) -> Mapping[str, Any]:
        try:
            said = json_text.parse(line.decode("utf-8"))
        except ValueError:  # not UTF-8 is one, too
            said = None
        if isinstance(said, dict) and _is_judgement(said):
            return said
        raise InputError(
            f"{self.path}:{number}: is no judgement; must be a line that `tune-lora rate` wrote (move it away to go on)"
        )

    def _append(self, said: Mapping[str, Any]) -> str:
        key = secrets.token_hex(8)
        now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
        line = json.dumps({"id": key, "at": now, **said}, ensure_ascii=False).encode("utf-8") + b"\n"
        held = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            before = _whole(held)
            try:
                if os.write(held, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))  # noqa: TRY301 - undone
                os.fsync(held)
            except OSError:
                os.ftruncate(held, before)
                raise
        finally:
            os.close(held)
        return key


def _whole(held: int) -> int:
    """The size of a file, after the beginning of a line that a power cut left at its end was taken away."""
    size = os.fstat(held).st_size
    if size and os.pread(held, 1, size - 1) != b"\n":
        size = os.pread(held, size, 0).rfind(b"\n") + 1
        os.ftruncate(held, size)
    return size


def _is_judgement(said: Mapping[str, Any]) -> bool:
    is_signed = all(isinstance(said.get(name), str) for name in ("id", "at", "rater"))
    return is_signed and (isinstance(said.get("undo"), str) or preferences.judgement(said) is not None)


def _undone(lines: Iterable[Mapping[str, Any]]) -> set[str]:
    return {str(line["undo"]) for line in lines if "undo" in line}


def keep(folder: Path) -> None:
    """Brings what stands in the file into the study, and the scores that it all comes to.

    Answers of other raters, and of a file that is elsewhere, stay as they are there.

    Raises:
        InputError: there is no study, or the file is broken.
        StudyError: its storage does not answer.
    """
    ratings = Ratings(folder)
    lines, standing = ratings.lines(), ratings.standing()
    if not lines:
        return
    study = store.load_study(folder)
    try:
        gone = _undone(lines)
        for rater in dict.fromkeys(str(line["rater"]) for line in lines):
            place = f"{store.RATINGS_PREFIX}{rater}"
            held = study.user_attrs.get(place, [])
            said = {one["id"]: one for one in [*held, *standing] if one["rater"] == rater and one["id"] not in gone}
            if (stored := list(said.values())) != held:
                study.set_user_attr(place, stored)
        found = preferences.of(store.read(study))
        scores = {str(one.trial): round(one.score, 4) for one in found.likings} if found else {}
        if scores != study.user_attrs.get(store.PREFERENCE, {}):
            study.set_user_attr(store.PREFERENCE, scores)
    finally:
        if (backend := patient(study)) is not None:
            backend.engine.dispose()
