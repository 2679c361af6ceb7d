"""Inputs by the batch: a batch is a kind and a seed, is drawn by hypothesis, and runs in a process of its own whose
memory is bounded. What was found goes to a file line by line, so that a run that ended goes on."""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisException

from benchmarks.fuzz import samples
from benchmarks.fuzz.judging import DEADLINE, Outcome, judge
from benchmarks.fuzz.kinds import KINDS

MEMORY = 3 << 30
"""Bytes that a batch may take beyond what it begins with."""
KEPT = 12
"""Bad inputs of one batch whose files are kept."""


@dataclass
class Batch:
    """What came of the inputs of one kind that one seed draws."""

    kind: str
    seed: int
    outcomes: dict[str, int] = field(default_factory=dict)
    bad: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """How many inputs there were."""
        return sum(self.outcomes.values())

    def add(self, outcome: Outcome, files: samples.Files, keep: Path | None) -> None:
        """Counts an outcome; the files of a bad one are kept."""
        self.outcomes[outcome.what] = self.outcomes.get(outcome.what, 0) + 1
        if outcome.is_bad and len(self.bad) < KEPT:
            name = f"{self.kind}-{self.seed}-{self.count}"
            if keep is not None:
                samples.write(keep / name, files)
            self.bad.append({"what": outcome.what, "said": outcome.said[-2000:], "files": name})


Judge = Callable[[Path], Outcome]


def run(kind: str, number: int, count: int, root: Path, keep: Path | None = None, judged: Judge | None = None) -> Batch:
    """Draws and judges `count` inputs in this process; `judged` takes the place of the kind's own door."""
    batch, began = Batch(kind, number), time.monotonic()
    known = KINDS[kind]
    verdict = judged or partial(judge, known.door)

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(known.files(root))
    def one(files: dict[str, bytes]) -> None:
        if batch.count >= count:
            return
        with tempfile.TemporaryDirectory(prefix="fuzz-") as made:
            folder = samples.write(Path(made).resolve(), files)
            if keep is not None:
                _remember(keep, files)
            batch.add(verdict(folder), files, keep)

    with contextlib.suppress(HypothesisException):  # a kind that has fewer inputs than were asked for
        one()
    batch.seconds = round(time.monotonic() - began, 1)
    return batch


def _remember(keep: Path, files: samples.Files) -> None:
    """The input under test, in case that the process does not live to tell."""
    shutil.rmtree(keep / "current", ignore_errors=True)
    samples.write(keep / "current", files)


def run_apart(kind: str, number: int, count: int, root: Path, keep: Path) -> Batch:
    """The same in a process of its own; one that dies or hangs in C is a bad outcome."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sending, kind, number, count, root, keep))
    process.start()
    sending.close()
    patience = 120 + count * 2.0
    said = _heard(receiving, patience)
    if process.is_alive() and said is None:
        process.kill()
    process.join()
    if said is not None:
        return Batch(**said)
    batch = Batch(kind, number)
    shutil.copytree(keep / "current", keep / f"{kind}-{number}-died", dirs_exist_ok=True)
    batch.outcomes["died"] = 1
    batch.bad.append({"what": "died", "said": f"exit code {process.exitcode}", "files": f"{kind}-{number}-died"})
    return batch


def _heard(receiving: Any, seconds: float) -> dict[str, Any] | None:
    try:
        said: dict[str, Any] | None = receiving.recv() if receiving.poll(seconds) else None
    except (EOFError, OSError):  # it died
        return None
    return said


def _child(sending: Any, kind: str, number: int, count: int, root: Path, keep: Path) -> None:
    faulthandler.enable()
    faulthandler.dump_traceback_later(DEADLINE * 6 + count * 2, exit=True)
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sending.send(asdict(run(kind, number, count, root, keep)))
    sending.close()


def recorded(file: Path) -> Iterator[Batch]:
    """The batches that a file holds."""
    if file.is_file():
        for line in file.read_text("utf-8").splitlines():
            yield Batch(**json.loads(line))


def record(batch: Batch, file: Path) -> None:
    """Adds a batch to a file."""
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(asdict(batch)) + "\n")


def planned(total: int, size: int, kinds: list[str]) -> Iterator[tuple[str, int]]:
    """Kind and seed of each batch, kinds in turn, until so many inputs are planned."""
    for number in itertools.count():
        for place, kind in enumerate(kinds):
            if (number * len(kinds) + place) * size >= total:
                return
            yield kind, number
