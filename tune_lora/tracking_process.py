"""The process that brings runs to what the driver says of its trials. It takes messages, one a line, until it is told
to close or the driver is gone; then it ends what is open.

It is a process of its own so that whatever Weights & Biases does, waiting, retrying, failing, costs the driver nothing:
not its lock on Python's threads, not its memory, not its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tune_lora import tracking_runs
from tune_lora.tracking_journal import Journal
from tune_lora.tracking_messages import harmless
from tune_lora.tracking_runs import TrialRun

AT_ONCE = 12
"""Runs that may wait for the server at the same time."""
NICENESS = 10
"""Whatever trains goes first."""
OFFLINE_SECONDS = 600.0
"""After a server has failed: how long all runs that begin are written offline, before it is tried again."""


class Switch:
    """Whether runs are uploaded: not for a while after the server has failed."""

    def __init__(self, online: bool) -> None:
        self._since = -float("inf") if online else float("inf")

    @property
    def is_online(self) -> bool:
        """Whether a run that begins now is uploaded."""
        return time.monotonic() >= self._since

    def failed(self) -> None:
        """The server did not do what it was asked for."""
        self._since = time.monotonic() + OFFLINE_SECONDS


class TrialTrack:
    """What a trial's run has been told, and the run that is brought to it. One thread at a time."""

    def __init__(self, place: Mapping[str, Any], switch: Switch, journal: Journal) -> None:
        self._place, self._switch, self._journal = place, switch, journal
        self._told: dict[str, Any] = {}
        self._run: TrialRun | None = None
        self._files: tuple[Path, str] | None = None

    def take(self, told: Mapping[str, Any]) -> None:
        """Brings the run to what a message says, offline where the server fails."""
        self._told = {**self._told, **told, "rows": [*self._told.get("rows", []), *told["rows"]]}
        self._somewhere(told["rows"])
        if self._told["end"] is not None:
            self._told, self._run = {}, None

    def leave(self) -> None:
        """The trial does not end here."""
        if self._run is not None:
            self._told["end"] = "left"
            self._somewhere([])

    def tidy(self) -> None:
        """Leaves one folder of the run. Only after wandb's own process has ended, which writes there."""
        if self._files is not None:
            tracking_runs.forget_earlier(*self._files)

    def _somewhere(self, news: list[Any]) -> None:
        try:
            self._here(news)
        except Exception as error:  # whatever wandb raises: the run is written offline, and it is said
            was_online = self._is_online
            self._drop()
            if not was_online:
                raise
            self._journal.note(problem=harmless(_reason(error)))
            self._switch.failed()
            self._here(self._told["rows"])

    @property
    def _is_online(self) -> bool:
        return self._switch.is_online if self._run is None else self._run.where == "online"

    def _here(self, news: list[Any]) -> None:
        if self._run is None:
            self._run, news = self._opened(), self._told["rows"]
        self._run.log(news)
        self._files = self._run.files, self._told["id"]
        if self._told["end"] == "left":
            self._run.leave()
        elif self._told["end"] is not None:
            self._run.end(self._told)
            is_best = "best" in self._told["tags"]
            self._journal.note(
                trial=self._told["trial"], id=self._told["id"], end=self._told["end"], where=self._run.where,
                best=is_best,
            )  # fmt: skip

    def _opened(self) -> TrialRun:
        place = self._place
        run = TrialRun(
            self._told, project=place["project"], group=place["group"], folder=Path(place["folder"]),
            online=self._switch.is_online,
        )  # fmt: skip
        self._journal.seen_at(run.url)
        return run

    def _drop(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            with contextlib.suppress(Exception):  # it has failed already
                run.drop()


class Tracks:
    """All trials' runs: the messages of each in their order, several trials at a time."""

    def __init__(self, place: Mapping[str, Any], switch: Switch, journal: Journal) -> None:
        self._new = lambda: TrialTrack(place, switch, journal)
        self._journal = journal
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="runs")
        self._lock = threading.Lock()
        self._waiting: dict[int, deque[Mapping[str, Any]]] = {}
        self._tracks: dict[int, TrialTrack] = {}

    def take(self, told: Mapping[str, Any]) -> None:
        """Takes a message; returns at once."""
        number = int(told["trial"])
        with self._lock:
            if number in self._waiting:
                self._waiting[number].append(told)
                return
            self._waiting[number] = deque([told])
        self._threads.submit(self._work, number)

    def _work(self, number: int) -> None:
        track = self._tracks.setdefault(number, self._new())
        while True:
            with self._lock:
                if not self._waiting[number]:
                    del self._waiting[number]
                    return
                told = self._waiting[number].popleft()
            self._said(track.take, told)

    def close(self) -> None:
        """Waits for all that was taken, then leaves the runs whose trials go on later."""
        self._threads.shutdown()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for track in self._tracks.values():
                threads.submit(self._said, track.leave)

    def tidy(self) -> None:
        """Leaves one folder of each run."""
        for track in self._tracks.values():
            track.tidy()

    def _said(self, work: Callable[..., None], *told: Mapping[str, Any]) -> None:
        try:
            work(*told)
        except Exception as error:  # noqa: BLE001  # nobody else hears of it: the driver reads the journal
            self._journal.note(problem=harmless(_reason(error)))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def main() -> None:
    """Reads what is tracked and where from the first line of stdin, messages from those that follow."""
    os.nice(NICENESS)
    place = json.loads(sys.stdin.buffer.readline())
    journal = Journal(Path(place["folder"]) / "wandb", place["session"])
    tracking_runs.begin_service()
    tracks = Tracks(place, Switch(place["online"]), journal)
    for line in sys.stdin.buffer:
        tracks.take(harmless(json.loads(line)))
    tracks.close()
    tracking_runs.end_service()
    tracks.tidy()


if __name__ == "__main__":
    main()
