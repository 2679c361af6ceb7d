"""What became of one input: a right result, a clear refusal, or one of the bad outcomes."""

from __future__ import annotations

import hashlib
import re
import signal
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from trainables.protocol import TrialFailure
from tune_lora.errors import InputErrors, TuneLoraError

DEADLINE = 20.0
"""Seconds that one input may take on a busy machine."""
LONGEST = 500
"""Characters of one mistake, without the folder that it names."""
_OPEN = ("-shm", "-wal", "-journal")
RIGHT, REFUSED = "right", "refused"
Door = Callable[[Path], object]
"""What a user's command does with a folder of files."""


@dataclass(frozen=True)
class Outcome:
    """`what` is ``right``, ``refused``, or a bad one: ``traceback``, ``unclear``, ``hang``, ``memory``, ``warning``,
    ``written``. `said` is the message, or what is wrong with it."""

    what: str
    said: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether a user must not see it."""
        return self.what not in (RIGHT, REFUSED)


class TookTooLongError(BaseException):
    """Not an Exception, so that nothing under test catches it."""


def judge(door: Door, folder: Path) -> Outcome:
    """Opens a door on a folder of files and says what came of it."""
    before = content(folder)
    outcome = _opened(door, folder)
    if outcome.is_bad:
        return outcome
    after = content(folder)
    if lost := [name for name, content in before.items() if after.get(name) != content]:
        return Outcome("written", f"{lost[0]} is another file now")
    if outcome.what == REFUSED and (left := sorted(after.keys() - before.keys())):
        return Outcome("written", f"left {left[0]} behind after: {outcome.said}")
    return outcome


def _opened(door: Door, folder: Path) -> Outcome:
    try:
        with _deadline(DEADLINE), _loud(), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            door(folder)
    except (TuneLoraError, TrialFailure) as error:
        unclear = [wrong for line in mistakes_of(error) if (wrong := unclear_in(line, folder))]
        return Outcome("unclear", unclear[0]) if unclear else Outcome(REFUSED, str(error))
    except OSError as error:  # about a file that somebody named: the command line says so in a line of its own
        if error.filename is None:
            return Outcome("traceback", traceback.format_exc())
        line = f"{error.filename}: {error.strerror}"
        return Outcome("unclear", wrong) if (wrong := unclear_in(line, folder)) else Outcome(REFUSED, line)
    except TookTooLongError:
        return Outcome("hang", traceback.format_exc())
    except MemoryError:
        return Outcome("memory", traceback.format_exc())
    except Exception:  # noqa: BLE001  # what must not happen is what is looked for
        return Outcome("traceback", traceback.format_exc())
    shown = [one for one in warned if not issubclass(one.category, DeprecationWarning | FutureWarning)]
    return Outcome("warning", str(shown[0])) if shown else Outcome(RIGHT)


def mistakes_of(error: Exception) -> tuple[str, ...]:
    """The mistakes that an error tells, which are a line each."""
    return error.mistakes if isinstance(error, InputErrors) else (str(error),)


def unclear_in(line: str, folder: Path) -> str:
    """Why a mistake is not one clear line that says where it is; empty where it is one."""
    if not line.strip():
        return "says nothing"
    if len(line.splitlines()) != 1:
        return f"is of several lines: {line!r}"
    if any(unicodedata.category(one) in ("Cc", "Zl", "Zp", "Cs") or one in "\u202e\u2066" for one in line):
        return f"has characters that a terminal obeys: {line!r}"
    if len(line.replace(str(folder), "")) > LONGEST:
        return f"is {len(line)} characters long: {line}"
    files = [path.name for path in folder.rglob("*")]
    is_placed = str(folder) in line or any(name in line for name in files) or re.match(r"[^:]+: |\S+ \S+ ", line)
    return "" if is_placed else f"names neither a file nor a key: {line}"


@contextmanager
def _loud() -> Generator[None, None, None]:
    """What a library can only write to stderr, from a callback or a finalizer, is raised afterwards."""
    seen: list[BaseException] = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda raised: seen.append(raised.exc_value or RuntimeError(str(raised)))
    try:
        yield
    finally:
        sys.unraisablehook = before
    if seen:
        raise RuntimeError("written to stderr") from seen[0]


@contextmanager
def _deadline(seconds: float) -> Generator[None, None, None]:
    def late(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # the signal handler's
        raise TookTooLongError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)  # None: a handler that is not Python's


def content(folder: Path) -> Mapping[str, str]:
    """A digest of every file by its name; without what SQLite keeps beside a database as long as it is open."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(_OPEN)
    }
