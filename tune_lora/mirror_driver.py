"""One driver a mirrored study, where its database is a file: no lock reaches from one machine to another, but all of
them reach the mirror.

    <mirror>/<study>/driver.json        who drives the study; its count is raised with each heartbeat

Whoever finds a driver there that still moves is refused. One that stands still for two heartbeats by the observer's
clock is gone. Object storage knows no locks either, so each heartbeat looks first whether another one took over, which
ends this driver: what it had begun goes on there.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from trainables.mirror_store import MirrorAway, MirrorStore
from tune_lora import leases, storage_files
from tune_lora.errors import InputError, StudyError
from tune_lora.leases import Lease
from tune_lora.spec import StudySpec

HEARTBEAT_SECONDS = 15.0
SETTLE_SECONDS = 1.0
"""Between taking a study and looking whether another one took it at the same moment."""
_PATIENT_LOOKS = 6  # while two heartbeats are waited for

Say = Callable[[str], None]


def _end_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)  # as `tune_lora.termination` has it: in order


class Fence:
    """This process as the driver of a mirrored study. Use `fenced`."""

    def __init__(self, uri: str, name: str) -> None:
        self._place, self._quick = MirrorStore(uri), MirrorStore(uri, patience=0.0)
        self._key, self._name, self._id = f"{name}/driver.json", name, secrets.token_hex(8)
        self._lease, self._count = leases.mine(0.0), 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, say: Say) -> None:
        """Waits until nobody else drives the study, and takes it. Raises InputError where somebody does."""
        self._wait_for_others(say)
        self._put(self._place)
        time.sleep(SETTLE_SECONDS)
        if not self._is_mine(there := self._place.get_bytes(self._key)):
            raise self._refused(there)

    def beat(self, say: Say, replaced: Callable[[], None]) -> None:
        """From now on says now and then that this driver is at work; calls `replaced` where another one took over."""

        def for_ever() -> None:
            while not self._over.wait(HEARTBEAT_SECONDS):
                try:
                    self.require()
                    self._put(self._quick)
                except MirrorAway:  # the next time
                    continue
                except StudyError as error:
                    say(str(error))
                    replaced()
                    return

        self._thread = threading.Thread(target=for_ever, name="heartbeat", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Raises StudyError where another driver took the study over, MirrorAway where that cannot be told."""
        there = self._quick.get_bytes(self._key)
        if there is not None and not self._is_mine(there):
            raise StudyError(
                f"study {self._name!r} was taken over by {_who(there)}, which has not heard of this driver; it stops"
            )

    def leave(self) -> None:
        """The study may be taken at once."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(MirrorAway):  # else it is waited for
            if self._is_mine(self._quick.get_bytes(self._key)):
                self._quick.drop(self._key)

    def _wait_for_others(self, say: Say) -> None:
        seen = self._place.get_bytes(self._key)
        if seen is None or _has_ended(seen):
            return
        wait = 2 * HEARTBEAT_SECONDS
        say(f"{_who(seen)} drove study {self._name!r} last: waiting {wait:g} s for a sign of it")
        for _ in range(_PATIENT_LOOKS):
            time.sleep(wait / _PATIENT_LOOKS)
            if (there := self._place.get_bytes(self._key)) is None:
                return
            if there != seen:
                raise self._refused(there)

    def _refused(self, there: bytes | None) -> InputError:
        return InputError(f"study {self._name!r} is running already ({_who(there)}); wait for it or stop it")

    def _put(self, place: MirrorStore) -> None:
        self._count += 1
        said = {**self._lease.as_mapping(), "count": self._count, "id": self._id}
        place.put_bytes(json.dumps(said).encode(), self._key)

    def _is_mine(self, there: bytes | None) -> bool:
        return _read(there).get("id") == self._id


@contextmanager
def fenced(spec: StudySpec, say: Say, *, replaced: Callable[[], None] = _end_this_process) -> Iterator[Fence | None]:
    """For the block this process is the driver of a mirrored study; None where the study has no mirror, or where its
    database is a server's, which has room for several.

    `replaced` is called, from a thread, when another driver took the study over.

    Raises:
        InputError: another machine drives the study.
    """
    if spec.resources.mirror is None or storage_files.is_server(spec.storage_url):
        yield None
        return
    fence = Fence(spec.resources.mirror, spec.name)
    fence.take(say)
    fence.beat(say, replaced)
    try:
        yield fence
    finally:
        fence.leave()


def _read(there: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(there or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _who(there: bytes | None) -> str:
    said = _read(there)
    return f"process {said.get('process', '?')} on {str(said.get('machine', '?')).partition('/')[0]}"


def _has_ended(there: bytes) -> bool:
    try:
        return leases.has_ended(Lease.from_mapping(_read(there)), leases.machine())
    except (KeyError, TypeError):
        return False
