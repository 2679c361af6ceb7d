"""Packed trials inside Ray Tune: an actor a device, which owns the base and its seats, and the trainer of light trials,
which talk to one of them. The trials stay Tune's: each has its own worker, folder, checkpoints and incarnations
(`trainables.ray_adapter`), as if it were trained there.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import zlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from trainables import checkpoints
from trainables.pack_guests import Said
from trainables.pack_host import PackHost
from trainables.protocol import Cause, Packing, Report, TrialContext, TrialFailure
from trainables.ray_adapter import DEVICE_SECONDS, Preempted, leave_if_asked
from trainables.seating import Offer, in_order
from trainables.shared_results import sees
from trainables.wrapped import Wrapped

LIGHT_CPU = 0.001
"""What a trial asks Ray for that computes nothing itself; its host gives as much away for each of its seats."""
_POLL_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
_RETRY_SECONDS = 0.5
PATIENCE_SECONDS = 300.0
"""How long a trial waits for any host to answer. One that answers that it is full is waited for without end."""
_GRACE_SECONDS = 5.0
"""How long a host that was told to end waits for its trials to hear of it."""


class HostActor:
    """A `PackHost` as a Ray actor. Errors are answers: what Ray makes of one that is raised has another type."""

    def __init__(self, trainer: Packing, seats: int, threads: int, mark: Path | None) -> None:
        # Before torch is loaded: its own pool would have as many threads as the machine has cores.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._sees_results = mark is None or sees(mark)
        self._host = PackHost(trainer, seats, threads, at_fault=_lost)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._told_to_end)

    def _told_to_end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # a signal handler's signature
        threading.Thread(target=self._leave, daemon=True).start()

    def _leave(self) -> None:
        """Sends the trials away, each to its newest checkpoint, and ends."""
        self._host.preempt()
        give_up = time.monotonic() + _GRACE_SECONDS
        while not self._host.is_empty and time.monotonic() < give_up:
            time.sleep(0.05)
        _lost()

    def ready(self) -> bool:
        """Whether it sees the results of the study; answered once it has begun."""
        return self._sees_results

    def offer(self, context: TrialContext) -> Offer | None:
        """What it has for a trial; None: nothing, and never."""
        return self._host.offer(context) if self._sees_results else None

    def join(self, context: TrialContext, suspect: bool) -> int | Exception | None:
        """A token; None where no seat is free; or why the trial cannot be trained."""
        try:
            return self._host.join(context, is_suspect=suspect)
        except Exception as error:  # noqa: BLE001  # raised again where the trial lives, which knows what to call it
            return error

    def next(self, token: int, patience: float) -> Said | None:
        """As of the host."""
        return self._host.next(token, patience)

    def save(self, token: int, folder: Path) -> Exception | None:
        """As of the host; returns why it could not."""
        try:
            self._host.save(token, folder)
        except Exception as error:  # noqa: BLE001  # as in `join`
            return error
        return None

    def leave(self, token: int) -> None:
        """As of the host."""
        self._host.leave(token)


def _lost() -> None:
    """Ends this process. Ray takes the actor for lost, and starts it again where there is room."""
    os._exit(1)


class Hosts:
    """The hosts of a study, opened by its driver; they end with it."""

    def __init__(
        self, trainer: Packing, seats: int, *, resources: dict[str, Any], threads: int, mark: Path | None, name: str
    ) -> None:
        self.seats, self.prefix = seats, f"{name}-"
        self._trainer, self._threads, self._mark = trainer, threads, mark
        given_away = LIGHT_CPU * (seats + 1)  # a worker more than there are seats: one leaves while another comes
        self._asked = resources | {"num_cpus": round(max(0.0, resources["num_cpus"] - given_away), 4)}
        self._opened: list[Any] = []
        self._starting: list[Any] = []

    def ensure(self, count: int) -> int:
        """Asks for so many hosts in all, and returns how many have begun."""
        while len(self._opened) < count:
            options = {
                "name": f"{self.prefix}{len(self._opened)}",
                "max_restarts": -1,
                "max_concurrency": 4 * self.seats + 8,  # a trial waits in a call of its own
                "scheduling_strategy": "SPREAD",
            }
            actor = ray.remote(HostActor).options(**options, **self._asked)
            host = actor.remote(self._trainer, self.seats, self._threads, self._mark)
            self._opened.append(host)
            self._starting.append(host.ready.remote())
        if self._starting:  # this is asked at every suggestion
            _, self._starting = ray.wait(self._starting, num_returns=len(self._starting), timeout=0)
        return len(self._opened) - len(self._starting)

    def close(self) -> None:
        """Ends them all."""
        for host in self._opened:
            ray.kill(host)
        self._opened.clear()
        self._starting.clear()


@dataclass(frozen=True)
class Hosted(Wrapped):
    """A trainer whose trials are trained by the hosts whose names begin with `prefix`, wherever there is a seat."""

    prefix: str

    def run(self, context: TrialContext) -> Generator[Report, None, None]:
        """The reports of a trial that is trained elsewhere, each with the seconds of the device that it took.

        Raises:
            TrialFailure: as the trainer's; ``infrastructure`` where the host was lost.
            Preempted: the host, or this process, was told to end.
        """
        visit = _Visit(self.prefix, context, self.budget_unit)
        try:
            while True:
                report = visit.next()
                yield report
                if report.final:
                    return
        finally:
            visit.end()


class _Visit:
    """A trial on its way from host to host; at most one of them trains it."""

    def __init__(self, prefix: str, context: TrialContext, unit: str) -> None:
        self._prefix, self._context, self._unit = prefix, replace(context, shared={}), unit
        self._host: Any = None
        self._token = 0
        self._is_suspect = False
        self._seconds, self._happened = 0.0, list[str]()

    def next(self) -> Report:
        """The next report, whatever befalls the seat on the way to it."""
        while True:
            if self._host is None:
                self._sit_down()
            said = _answer(self._host.next.remote(self._token, _POLL_SECONDS))
            if said is not None and (report := self._heard(said)) is not None:
                return report

    def _heard(self, said: Said) -> Report | None:
        self._seconds += said.seconds
        if said.report is not None:
            return self._reported(said.report, said.saves)
        self._host = None
        if said.preempted:
            raise Preempted
        if said.again:
            self._go_on_from_the_newest(said)
            return None
        error = said.failure or said.error
        assert error is not None  # one of what a host can say
        raise self._with_seconds(error)

    def _reported(self, report: Report, saves: bool) -> Report:
        seconds, self._seconds = self._seconds, 0.0
        happened, self._happened = self._happened, []
        save = partial(_save, self._host, self._token) if saves else None
        return replace(report, save=save, seconds=seconds, happened=happened)

    def _with_seconds(self, error: Exception) -> Exception:
        setattr(error, DEVICE_SECONDS, self._seconds)
        return error

    def _go_on_from_the_newest(self, said: Said) -> None:
        found, damaged = checkpoints.restorable(self._context.folder)
        self._happened += [*damaged, f"{said.again}; it goes on from {checkpoints.begins(found, self._unit)}"]
        self._is_suspect = said.suspect
        self._context = replace(self._context, restore=found.path if found else None)

    def _sit_down(self) -> None:
        """Waits for a seat."""
        answered = time.monotonic()
        while self._host is None:
            leave_if_asked()
            offers, hosts = self._offers()
            if offers:
                answered = time.monotonic()
            elif time.monotonic() - answered > PATIENCE_SECONDS:
                raise TrialFailure(Cause.INFRASTRUCTURE, f"no host answered for {PATIENCE_SECONDS:.0f} s")
            for host in (hosts[name] for name in in_order(offers)):
                token = _answer(host.join.remote(self._context, self._is_suspect))
                if isinstance(token, Exception):
                    raise self._with_seconds(token)
                if token is not None:
                    self._host, self._token = host, token
                    return
            time.sleep(_RETRY_SECONDS)

    def _offers(self) -> tuple[dict[str, Offer], dict[str, Any]]:
        """What hosts offer that answer, and all hosts; those that are starting, or are gone, do not answer."""
        hosts = self._hosts()
        asked = {host.offer.remote(self._context): name for name, host in hosts.items()}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS) if asked else ([], [])
        offers: dict[str, Offer] = {}
        for one in answered:
            try:
                offer = ray.get(one)
            except RayError:
                continue
            if offer is not None:
                offers[asked[one]] = offer
        return offers, hosts

    def _hosts(self) -> dict[str, Any]:
        """By name; each trial in an order of its own, so that those that begin at once do not all ask for the same."""
        names = [name for name in ray.util.list_named_actors() if name.startswith(self._prefix)]
        turn = zlib.crc32(str(self._context.folder).encode()) % max(1, len(names))
        found = {}
        for name in [*names[turn:], *names[:turn]]:
            try:
                found[name] = ray.get_actor(name)
            except ValueError:  # it ended in between
                continue
        return found

    def end(self) -> None:
        """Gives the seat back; nothing is waited for."""
        if self._host is not None:
            self._host.leave.remote(self._token)
            self._host = None


def _save(host: Any, token: int, folder: Path) -> None:
    error = _answer(host.save.remote(token, folder))
    if isinstance(error, KeyError):
        raise TrialFailure(Cause.INFRASTRUCTURE, "its seat was given to another before its checkpoint was written")
    if error is not None:
        raise error


def _answer(asked: Any) -> Any:
    """What a host answers.

    Raises:
        TrialFailure: it is gone; the cause is ``infrastructure``.
    """
    try:
        return ray.get(asked)
    except RayActorError as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrialFailure(Cause.INFRASTRUCTURE, f"the process that trained it was lost ({said})") from error


def light() -> dict[str, float]:
    """What a trial asks Tune for that is trained by a host."""
    return {"cpu": LIGHT_CPU, "gpu": 0}
