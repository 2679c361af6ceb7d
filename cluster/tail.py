"""A log that is followed over a connection that may break: each line is written once, whole, and Ray's own are left
out."""

from __future__ import annotations

from collections.abc import Callable

_OF_RAY = ("Running entrypoint for job ", "Runtime env is setting up.")


class Tail:
    """Takes what a connection says and hands on the lines that are new. Each connection begins at the log's start."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._known, self._at, self._rest = 0, 0, ""

    @property
    def heard(self) -> int:
        """Characters of the log so far, those that were told once more not counted."""
        return self._known

    def begin(self) -> None:
        """A new connection."""
        self._at = 0

    def feed(self, chunk: str) -> None:
        """The next part of what the connection says."""
        new = chunk[max(0, self._known - self._at) :]
        self._at += len(chunk)
        self._known = max(self._known, self._at)
        *lines, self._rest = (self._rest + new).split("\n")
        for line in lines:
            self._say(line)

    def end(self) -> None:
        """The log is over: what has no end of a line is a line too."""
        if self._rest:
            self._say(self._rest)
        self._rest = ""

    def _say(self, line: str) -> None:
        if is_of_study(line):
            self._write(line)


def is_of_study(line: str) -> bool:
    """Whether a line of a job's log is not Ray's own about the job."""
    return not any(said in line for said in _OF_RAY)
