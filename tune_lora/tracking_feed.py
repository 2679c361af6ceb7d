"""The driver's side of tracking: what its trials look like, handed to the process that tracks them.

A look at the study costs a driver a few assignments. What a trial looks like now replaces what it looked like before,
so that however slow the other side is, no more waits for it than there are trials, and nothing is lost: at the end
whatever has not arrived is written offline.
"""

from __future__ import annotations

import secrets
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from trainables.redaction import redacted
from tune_lora.records import StudyRecord, TrialRecord
from tune_lora.tracking import CLOSE_SECONDS, WHOLE, Place
from tune_lora.tracking_channel import TrackingProcess
from tune_lora.tracking_journal import Journal
from tune_lora.tracking_messages import end_of, ended_as

REWRITE_SECONDS, REWRITE_SECONDS_A_RUN = 30.0, 0.5
"""How long writing offline what was not uploaded may take, and how much longer for each run."""


class WandbTracker:
    """Hands what it sees to the tracking process, which begins with the first trial."""

    def __init__(self, place: Place, *, online: bool) -> None:
        self._place, self._online, self._session = place, online, secrets.token_hex(8)
        self._journal = Journal(place.files, self._session)
        self._marked = self._journal.best()
        self._condition = threading.Condition()
        self._pending: dict[int, TrialRecord] = {}
        self._latest: dict[int, TrialRecord] = {}
        self._is_first, self._is_closed = place.catches_up, False
        self.record: StudyRecord | None = None
        self._process: TrackingProcess | None = None
        self._thread: threading.Thread | None = None
        self._problem = ""

    # --- while the study runs ----------------------------------------------------------------------------------------

    def look(self, record: StudyRecord, changed: Sequence[TrialRecord]) -> None:
        """Notes what trials look like, for the feeding thread."""
        if self._is_first:
            self._is_first, changed = False, [*self._missed(record), *changed]
        if not changed or self._is_closed:
            return
        with self._condition:
            self.record = record
            for trial in changed:
                self._pending[trial.number] = self._latest[trial.number] = trial
            self._condition.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._feed, name="tracking", daemon=True)
            self._thread.start()

    def _missed(self, record: StudyRecord) -> list[TrialRecord]:
        """Trials that ended without their runs: tracking was off, or the driver ended first."""
        held = self._journal.ended()
        return [one for one in record.trials if end_of(one) is not None and not self._is_in(held, one)]

    def _is_in(self, held: Mapping[int, Mapping[str, Any]], trial: TrialRecord) -> bool:
        line = held.get(trial.number, {})
        return (line.get("id"), line.get("end")) == ended_as(self._place, trial)

    def _feed(self) -> None:
        try:
            self._process = TrackingProcess(self._place, online=self._online, session=self._session)
            while trials := self._next():
                for trial in trials:
                    self._process.tell(self._study, trial)
            for trial, is_best in self._marks():
                self._process.tell(self._study, trial, best=is_best)
            self._process.close()
        except OSError as error:  # the process is gone, or could not begin
            self._problem = self._problem or str(error)

    @property
    def _study(self) -> StudyRecord:
        assert self.record is not None, "nothing is fed before the first look"
        return self.record

    def _next(self) -> list[TrialRecord]:
        """Waits for news; empty when the study has ended and all is told."""
        with self._condition:
            self._condition.wait_for(lambda: self._pending or self._is_closed)
            trials, self._pending = list(self._pending.values()), {}
        return trials

    def _marks(self) -> list[tuple[TrialRecord, bool]]:
        """The trials whose runs are marked, or no longer, as that of the best: of the winner, where it was verified."""
        best = self._study.winner
        if best is None or (best.number == self._marked and best.number not in self._latest):
            return []
        before = [one for one in self._study.trials if one.number == self._marked != best.number]
        return [*((one, False) for one in before), (best, True)]

    # --- its end -----------------------------------------------------------------------------------------------------

    def close(self, timeout: float = CLOSE_SECONDS) -> list[str]:
        """Waits `timeout` seconds at most; what has not arrived by then is written offline."""
        with self._condition:
            self._is_closed = True
            self._condition.notify()
        if self._thread is None:
            return []
        self._end(timeout)
        if self._left():
            self._rewrite()
        return self._lines()

    def _end(self, timeout: float) -> None:
        assert self._thread is not None, "begun with the first trial"
        deadline = time.monotonic() + timeout
        self._thread.join(timeout)
        if self._process is None:
            return
        if self._thread.is_alive():
            self._process.kill()
            self._thread.join()
        if not self._process.wait(deadline - time.monotonic()) and self._left():
            self._problem = self._process.last_words or f"not all runs were uploaded within {timeout:.0f} s"

    def _left(self) -> list[tuple[TrialRecord, bool]]:
        """Trials whose runs have not been brought to their end, each with whether it is the best."""
        held, best = self._journal.ended(mine=True), self._study.winner
        marked = {trial.number: is_best for trial, is_best in self._marks()}
        wanted = {number: trial for number, trial in self._latest.items() if end_of(trial) is not None}
        wanted |= {trial.number: trial for trial, _ in self._marks()}
        is_best = {number: marked.get(number, best is not None and number == best.number) for number in wanted}
        return [
            (trial, is_best[number])
            for number, trial in wanted.items()
            if not self._is_in(held, trial) or (number in marked and bool(held[number]["best"]) != marked[number])
        ]

    def _rewrite(self) -> None:
        """Writes offline what has not arrived."""
        left = self._left()
        try:
            process = TrackingProcess(self._place, online=False, session=self._session)
            for trial, is_best in left:
                process.tell(self._study, trial, best=is_best)
            process.close()
            process.wait(REWRITE_SECONDS + REWRITE_SECONDS_A_RUN * len(left))
        except OSError as error:
            self._problem = self._problem or str(error)

    def _lines(self) -> list[str]:
        problems = [*self._journal.said("problem"), *filter(None, [self._problem])]
        lines = []
        if missing := len(self._left()):
            problems.append(_runs(missing, "not written"))
        if problems:
            first, last = redacted(problems[0]), problems[-1] if missing and len(problems) > 1 else ""
            lines.append(f"Weights & Biases: {'; '.join(filter(None, [first, last, WHOLE]))}")
        lines += [f"Weights & Biases: {url}" for url in self._journal.said("url")[:1]]
        if here := self._on_disk():
            command = f"wandb sync {shlex.quote(str(self._place.files))}/offline-run-*"
            lines.append(f"Weights & Biases: {_runs(here, 'on disk')}; upload with: {command}")
        return lines

    def _on_disk(self) -> int:
        """Runs that were never uploaded; `wandb sync` leaves a mark beside those that it has."""
        files = self._place.files.glob("offline-run-*/run-*.wandb")
        return sum(not file.with_name(f"{file.name}.synced").exists() for file in files)


def _runs(count: int, where: str) -> str:
    return f"1 run {where}" if count == 1 else f"{count} runs {where}"
