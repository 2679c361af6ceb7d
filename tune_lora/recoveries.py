"""What a lost worker is called in the summary, from what Ray wrote down about a trial that it starts again; and when a
trial goes on that Ray has given up."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from trainables import checkpoints, incarnations

_FAILURE = re.compile(r"^Failure # \d+ \(occurred at .*\)$", re.MULTILINE)
_RAISED = re.compile(r"^\S*\b(Preempted|Lost): (.*)$", re.MULTILINE)
_NODE = re.compile(r"\bnode (has )?died|node was (terminated|preempted|drained)|\bnode is dead\b", re.IGNORECASE)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 20.0
"""Tune asks for nothing else while nothing runs, so that a pause is also how long it may take to hear a SIGTERM."""


class Waiting:
    """Trials that lost their workers more often than Ray starts one again and could go on: each does after a pause, up
    to `limit` times.

    What fails workers in a row is mostly over by itself: a share that is away, a disk that somebody makes room on.
    """

    def __init__(self, limit: int, now: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._now = limit, now
        self._times: Counter[int] = Counter()
        self._until: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def put(self, number: int) -> bool:
        """Lets a trial wait; returns False where it has done so `limit` times."""
        if self._times[number] >= self._limit:
            return False
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** self._times[number])
        self._times[number] += 1
        self._until[number] = self._now() + pause
        return True

    def due(self) -> list[int]:
        """The trials whose pause is over, which wait no more."""
        over = [number for number, until in self._until.items() if until <= self._now()]
        for number in over:
            del self._until[number]
        return over

    def why(self, number: int) -> str:
        """Why a trial goes on that Ray does not run, in words."""
        times = self._times[number]
        return f"its workers were lost ({times} of {self._limit} times)" if times else "the study was interrupted"


def loss(written: str) -> str:
    """What the last failure in Ray's error file of a trial was, in words."""
    last = _FAILURE.split(written)[-1]
    raised = _RAISED.findall(last)
    if raised:
        kind, message = raised[-1]
        return f"its machine failed it ({message})" if kind == "Lost" else message
    return "its node was lost" if _NODE.search(last) else "its worker was lost"


def line(number: int, why: str, folder: Path, unit: str) -> str:
    """What is told about a trial that goes on, and on which machine it was."""
    newest, was = checkpoints.newest(folder), incarnations.standing(folder)
    where = f" on {was.host}" if was else ""
    begins = f"goes on from {unit} {checkpoints.budget_of(newest)}" if newest else "begins again"
    return f"trial {number}{where}: {why}; it {begins}"
