"""Who may write into a trial's folder, and what each who might has reported.

A trial that is started again, elsewhere or by another driver, is a new *incarnation* of it. Each begins by making the
next file of ``reports/``: ``0001.jsonl``, ``0002.jsonl``, ... A file can be made once only, on shared disks as well, so
the numbers are a fence: whoever finds that the next number exists was cut off, has been replaced, and must stop. The
file holds what its incarnation reported, a line each, the first one saying where it went on from, and has one writer.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.checkpoints import Checkpoint, flush

FOLDER = "reports"


class Superseded(Exception):
    """This process was taken for lost, and its trial goes on elsewhere."""


@dataclass(frozen=True)
class Incarnation:
    """One start of a trial, the only one that may write while no later one has begun."""

    folder: Path
    number: int

    @classmethod
    def begin(cls, trial_folder: Path) -> Incarnation:
        """Takes the trial over from whoever had it."""
        folder = trial_folder / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        number = max((int(path.stem) for path in folder.glob("[0-9]*.jsonl")), default=0) + 1
        while not _make(_file(folder, number)):  # another began at the same moment; the last one has the trial
            number += 1
        flush(folder)
        return cls(folder, number)

    @property
    def is_superseded(self) -> bool:
        """Whether a later incarnation has begun."""
        return _file(self.folder, self.number + 1).exists()

    def check(self) -> None:
        """Raises Superseded where a later incarnation has begun."""
        if self.is_superseded:
            raise Superseded(f"another process goes on with {self.folder.parent}; this one was taken for lost")

    def goes_on_from(self, checkpoint: Checkpoint | None) -> None:
        """Writes down where it begins."""
        origin = [checkpoint.incarnation, checkpoint.budget] if checkpoint else None
        self._append({"from": origin, "host": socket.gethostname(), "process": os.getpid()})

    def report(self, result: Mapping[str, Any]) -> None:
        """Writes down one report, on the disk when this returns.

        Raises:
            Superseded: the trial goes on elsewhere; nothing is written.
        """
        self.check()
        self._append(result)

    def _append(self, content: Mapping[str, Any]) -> None:
        with _file(self.folder, self.number).open("ab") as stream:
            # What a full disk left of a line must not spoil the next one: it ends here, and is passed over.
            stream.write(b"\n" * bool(stream.tell()) + json.dumps(content).encode())
            stream.flush()
            os.fsync(stream.fileno())


def reported(trial_folder: Path, checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """What led to a checkpoint: the reports of its incarnation, before them those of the one that it went on from, and
    so on; by budget, each once, the checkpoint's own last."""
    found: dict[int, dict[str, Any]] = {}
    origin: Any = [int(checkpoint.incarnation), checkpoint.budget]
    while origin is not None:
        number, budget = origin
        lines = _lines(_file(trial_folder / FOLDER, number))
        for line in lines:
            if "budget" in line and line["budget"] <= budget:
                found.setdefault(line["budget"], line)
        earlier = next((line["from"] for line in lines if "from" in line), None)
        origin = earlier if earlier is not None and earlier[0] < number else None
    return [found[budget] for budget in sorted(found)]


def seconds(trial_folder: Path) -> float:
    """Training time over all incarnations so far, that of reports which were lost included."""
    files = (trial_folder / FOLDER).glob("[0-9]*.jsonl")
    return max((float(line.get("seconds", 0.0)) for path in files for line in _lines(path)), default=0.0)


@dataclass(frozen=True)
class Standing:
    """Where a trial runs, or ran last: the machine, the process, and the budget of its last report there."""

    host: str
    process: int
    budget: int


def standing(trial_folder: Path) -> Standing | None:
    """Where the latest incarnation is and how far it has come; None where none has begun."""
    files = sorted((trial_folder / FOLDER).glob("[0-9]*.jsonl"))
    lines = _lines(files[-1]) if files else []
    begun = next((line for line in lines if "host" in line), None)
    if begun is None:
        return None
    budget = max((int(line["budget"]) for line in lines if "budget" in line), default=(begun.get("from") or [0, 0])[1])
    return Standing(str(begun["host"]), int(begun.get("process", 0)), int(budget))


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}.jsonl"


def _make(path: Path) -> bool:
    try:
        path.open("xb").close()
    except FileExistsError:
        return False
    return True


def _lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines; what a killed writer or a full disk left of one is passed over."""
    found = []
    for text in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            found.append(line)
    return found
