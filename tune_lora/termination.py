"""SIGTERM to a driver: how Slurm, Kubernetes and ``ray job stop`` end a program. Nothing is lost by it: what was
running stays so in the study, and goes on when the same command is given again.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

TERMINATED_CODE = 143
"""What shells expect of a program that SIGTERM ended."""
SIGTERM = "SIGTERM"
"""How a stop reason names it."""
_noticing: list[threading.Event] = []
"""Of each block of `noticed`, whether it has heard one."""


@contextmanager
def exits() -> Generator[None, None, None]:
    """In this block SIGTERM ends the program as ctrl-C would: what is open is closed, the exit code is 143."""
    with _handled(_exit):
        yield


@contextmanager
def noticed() -> Generator[Callable[[], bool], None, None]:
    """In this block the first SIGTERM is remembered, which the function given says, and the second one ends the
    program."""
    asked = threading.Event()

    def hear() -> None:
        if asked.is_set():
            _exit()
        asked.set()

    _noticing.append(asked)
    try:
        with _handled(hear):
            yield asked.is_set
    finally:
        _noticing.remove(asked)


@contextmanager
def overheard() -> Generator[Callable[[], bool], None, None]:
    """In this block the function given says whether the program was told to end: by a SIGTERM that `noticed` remembers,
    or by ctrl-C, which does what it did before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield _is_noticed
        return
    before, interrupted = signal.getsignal(signal.SIGINT), threading.Event()

    def hear(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGINT, hear)
    try:
        yield lambda: interrupted.is_set() or _is_noticed()
    finally:
        if signal.getsignal(signal.SIGINT) is hear:  # what was before may have put another in its place
            signal.signal(signal.SIGINT, before)


def _is_noticed() -> bool:
    return any(asked.is_set() for asked in tuple(_noticing))


def _exit() -> None:
    sys.exit(TERMINATED_CODE)


@contextmanager
def _handled(hear: Callable[[], None]) -> Generator[None, None, None]:
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers; nor is it ever asked
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: hear())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
