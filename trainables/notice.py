"""SIGTERM in a worker process, which is how a machine says that it will be taken away: what is under way is finished
and written down, then the process leaves its trial to another.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class Notice:
    """Hears SIGTERM. While something is under way the process goes on to the end of it, and has been `asked`;
    otherwise, or at a second SIGTERM, the process ends as it would have."""

    def __init__(self) -> None:
        self.asked = False
        self._busy = False
        self._before: object = None

    def listen(self) -> None:
        """Begins to hear, where a process can: in its main thread."""
        if self._before is None and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._hear)

    @contextmanager
    def finishing(self) -> Generator[None, None, None]:
        """What happens in this block is finished first."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._busy and not self.asked:
            self.asked = True
        elif callable(self._before):
            self._before(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
