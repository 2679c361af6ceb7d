"""Processes that train side by side and are measured only while all of them are busy.

A process is told a number of steps by a line, trains them, says so, and goes on training until the next line; then it
says when it did what, by the machine's own clock. So nobody is measured beside an idle core or an idle device.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

THROUGH, FAILED = "through", "failed: "

Span = tuple[float, float]


class Failed(Exception):
    """A process could not train, with what it said of it."""


@dataclass(frozen=True)
class Worked:
    """When a process was `busy`, from begin to end, and the `spans` of it that count, in seconds of the machine's
    clock; bytes that were `used` of the memory it looked at."""

    busy: Span
    spans: tuple[Span, ...]
    used: int = 0

    @property
    def seconds(self) -> float:
        """Of what counts."""
        return sum(end - begin for begin, end in self.spans)


def rate(samples: Sequence[int], worked: Sequence[Worked]) -> float:
    """Samples per second of all processes together, each with the samples of what counts.

    Raises:
        ValueError: something that counts was measured while another process was not busy.
    """
    for one in worked:
        for begin, end in one.spans:
            if any(begin < other.busy[0] or end > other.busy[1] for other in worked):
                raise ValueError("a process was measured while another was idle")
    return sum(count / one.seconds for count, one in zip(samples, worked, strict=True))


# --- in a process ----------------------------------------------------------------------------------------------------


def serve(train: Callable[[int], tuple[Sequence[Span], float]], used: Callable[[], int] = lambda: 0) -> None:
    """Trains whenever a line says how many steps, until the input ends. `train` returns the spans that count and when
    it ended; it calls `go_on` behind them. `used` tells the memory, while the others hold theirs as well."""
    while told := _line():
        began, (spans, ended) = time.monotonic(), train(int(told))
        _line()
        print(json.dumps({"busy": [began, ended], "spans": spans, "used": used()}), flush=True)


def go_on(step: Callable[[], object]) -> float:
    """Says that what counts is through, and trains on until there is a line to read; returns when that was."""
    print(THROUGH, flush=True)
    while not select.select([0], [], [], 0)[0]:
        step()
    return time.monotonic()


def timed(step: Callable[[], object], steps: int, wait: Callable[[], object] = lambda: None) -> Span:
    """When so many steps were done; `wait` is for a device that answers before it is through."""
    wait()
    began = time.monotonic()
    for _ in range(steps):
        step()
    wait()
    return began, time.monotonic()


def _line() -> str:
    """The next line, read byte by byte: nothing may wait in a buffer that `select` does not see."""
    found = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        found += byte
    return found.decode()


# --- in front of them ------------------------------------------------------------------------------------------------


@contextmanager
def started(arguments: Sequence[str], more: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process of ``python -m`` with more in its environment; it ends with the context."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=Path(__file__).parents[1],
        env={**os.environ, **more},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def measured(processes: Sequence[subprocess.Popen[str]], steps: int) -> list[Worked]:
    """All of them train so many steps, side by side.

    Raises:
        Failed: one of them cannot.
    """
    _tell(processes, str(steps))
    for process in processes:
        _said(process, THROUGH)
    _tell(processes, "enough")
    found = [json.loads(_said(process, "{")) for process in processes]
    return [Worked(tuple(one["busy"]), tuple(map(tuple, one["spans"])), one["used"]) for one in found]


def _said(process: subprocess.Popen[str], begins: str) -> str:
    """The next line that begins so; libraries may print others."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(begins):
            return line
        if line.startswith(FAILED):
            raise Failed(line.removeprefix(FAILED).strip())
    raise Failed(f"the process ended with exit code {process.wait()}")


def _tell(processes: Sequence[subprocess.Popen[str]], line: str) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
