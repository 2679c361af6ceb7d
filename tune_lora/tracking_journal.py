"""What became of the runs of a study, line by line beside their files: who goes on with the study reads it.

Only appended to, by several processes if need be; a line that was cut off is as if it had never been written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

FILE = "tracked.jsonl"
Where = Literal["online", "offline"]


class Journal:
    """The journal in a folder of runs. `session` tells one process's lines from those of others.

    Lines are ``{"trial", "id", "end", "where", "best"}`` for a run that was brought to its end, ``{"problem"}`` and
    ``{"url"}``.
    """

    def __init__(self, folder: Path, session: str) -> None:
        self._path, self._session = folder / FILE, session
        self._urls: set[str] = set()

    def note(self, **said: Any) -> None:
        """Appends a line. Raises OSError where that cannot be."""
        # Begun by its own newline: what another process left unfinished does not swallow it.
        line = b"\n" + json.dumps({**said, "session": self._session}).encode() + b"\n"
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(handle, line)  # in one piece: other processes append as well
        finally:
            os.close(handle)

    def seen_at(self, url: str) -> None:
        """Notes once where runs can be seen."""
        if url and url not in self._urls:
            self._urls.add(url)
            self.note(url=url)

    def ended(self, *, mine: bool = False) -> dict[int, Mapping[str, Any]]:
        """The newest line of each trial's run that ended, by number; only this session's where `mine`."""
        lines = (line for line in self._lines() if isinstance(line.get("trial"), int))
        return {line["trial"]: line for line in lines if not mine or line.get("session") == self._session}

    def best(self) -> int | None:
        """Whose run was marked as the best one last."""
        marked = None
        for number, line in self.ended().items():
            marked = number if line.get("best") else marked
        return marked

    def said(self, what: Literal["problem", "url"]) -> list[str]:
        """This session's problems, or where its runs can be seen, in order and each once."""
        lines = (line for line in self._lines() if line.get("session") == self._session)
        return list(dict.fromkeys(str(line[what]) for line in lines if what in line))

    def places(self) -> list[str]:
        """Where runs can be seen, by all sessions, the newest last."""
        return [str(line["url"]) for line in self._lines() if "url" in line]

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            text = self._path.read_text("utf-8", errors="replace")
        except OSError:  # there is none yet, or its folder cannot be reached
            return
        for line in text.splitlines():
            try:
                told = json.loads(line)
            except ValueError:
                continue
            if isinstance(told, dict):
                yield told
