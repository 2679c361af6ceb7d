"""The study that faults hit: a small search with a reference configuration, run by the real command line."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.faults.cluster import Cluster, wait_until

TRIALS = 6
ENOUGH = 1000
"""In place of an exit code: the study had all its trials."""
TITLES = (b"Curve", b"ResourceTrainable")
"""What Ray calls a process that trains: between calls, and while it serves one."""
STARTS = 6
"""How often a user gives the same command before it counts as hung."""
SPACE: dict[str, Any] = {
    "name": "rates",
    "parameters": {
        "learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1},
        "max_train_epochs": {"type": "categorical", "choices": [5, 7]},
    },
    "priors": {"usual": {"note": "what is usual", "params": {"learning_rate": 1e-3, "max_train_epochs": 5}}},
}


@dataclass
class Run:
    """One study on a cluster. `folder` is its results folder's parent, `traces` where its epochs are counted."""

    cluster: Cluster
    folder: Path
    traces: Path
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    def write(self, seed: int) -> None:
        """The study file."""
        for place in (self.folder, self.traces):
            wait_until(lambda place=place: _is_empty(place), f"nobody writes into {place}")  # type: ignore[misc]
            place.mkdir(parents=True)
        content = {
            "name": "s", "trainer": "curve", "space": SPACE, "curve": {"seconds": 0.25},
            "search": {"n_startup_trials": 3, "seed": seed},
            "scheduler": {"name": "asha", "grace": 3, "eta": 2},
            "budget": {"n_trials": TRIALS, "plateau": None},
            "resources": {"cpu": 1, "concurrent": 2},
            "tracking": {"wandb": "off"},
            "results": str(self.folder),
        } | self.changes  # fmt: skip
        self.file.write_text(yaml.safe_dump(content))

    @property
    def file(self) -> Path:
        """The study file."""
        return self.log.with_suffix(".yaml")

    @property
    def results(self) -> Path:
        """The study's own folder."""
        return self.folder / "s"

    def start(self) -> None:
        """Gives the command."""
        told = {"RAY_ADDRESS": self.cluster.address} | self.environment
        self.process = self.cluster.driver(self.log, "run", str(self.file), **told)

    @property
    def driver(self) -> subprocess.Popen[bytes]:
        """The command's process."""
        assert self.process is not None, "not started"
        return self.process

    def epochs(self) -> int:
        """How many have been begun so far."""
        return sum(len(path.read_text().splitlines()) for path in self.traces.glob("*.txt"))

    def wait_for(self, epochs: int) -> None:
        """Until so many have been begun, or the study has ended before."""
        wait_until(lambda: self.epochs() >= epochs or self.driver.poll() is not None, f"{epochs} epochs")

    def finish(self, deadline: float, has_all: Callable[[], bool]) -> bool:
        """Lets it end, giving the command again where it ended early; whether it came to its end. A driver whose study
        `has_all` is ended before it has drawn its figures, which no fault here is about."""
        while len(self.codes) < STARTS:
            until = time.monotonic() + deadline
            while self.driver.poll() is None and time.monotonic() < until:
                if has_all():
                    self.end()
                    self.codes.append(ENOUGH)
                    return True
                time.sleep(0.3)
            if self.driver.poll() is None:
                self.end()
                return False
            self.codes.append(self.driver.wait())
            if self.codes[-1] == 0:
                return True
            self.start()
        return False

    def end(self) -> None:
        """Kills the driver, where it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.driver.pid, signal.SIGKILL)
        self.driver.wait()


def _is_empty(place: Path) -> bool:
    shutil.rmtree(place, ignore_errors=True)
    return not place.exists()


def trainings(cluster: Cluster) -> dict[int, int]:
    """Processes that train, each with the index of its worker node."""
    found = {}
    for index, node in enumerate(cluster.workers):
        for number in node.machine.processes():
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{number}/cmdline").read_bytes()
                if title.startswith(b"ray::") and any(word in title for word in TITLES):
                    found[number] = index
    return found


def one_of(items: list[int], random_: random.Random) -> int:
    """A random one; the first of nothing is a fault of the benchmark itself."""
    if not items:
        raise LookupError("nothing trains")
    return random_.choice(sorted(items))
