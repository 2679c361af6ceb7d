"""Which drivers of a study are gone: pure, from what they wrote and when it was seen to change.

Each driver of a shared study keeps a lease: a count that it raises every few seconds. Clocks of machines are not
compared. A driver is gone when its lease was seen to stand still for as long as it lasts by the *observer's* clock,
of which only the time counts in which the storage answered: after an outage everybody's lease stands still.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

LEASE_SECONDS = 60.0
RENEW_SECONDS = 15.0


@dataclass(frozen=True)
class Lease:
    """What a driver says of itself. `count` is raised with each renewal; `at` is the database's clock in seconds, None
    where it has none that compares; `patience` is how long the driver waits for its storage before it gives up;
    `machine` and `process` tell whether it is one of this machine's, and which, with `began`, its start in seconds.
    """

    count: int
    machine: str
    process: int
    began: float
    patience: float
    at: float | None = None

    def as_mapping(self) -> dict[str, Any]:
        """Plain data that `from_mapping` reads."""
        return dict(vars(self))

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Lease:
        """Of what `as_mapping` gave."""
        return cls(**{name: given[name] for name in cls.__dataclass_fields__})


def mine(patience: float) -> Lease:
    """A first lease of this process."""
    process = psutil.Process()
    return Lease(0, machine(), process.pid, process.create_time(), patience)


def machine() -> str:
    """This machine since it was started, as far as its processes have numbers of their own (a container is one)."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    started = boot.read_text().strip() if boot.is_file() else str(psutil.boot_time())
    space = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{started}/{os.stat(space).st_ino if space.exists() else 0}"  # noqa: PTH116 - follows


def has_ended(lease: Lease, here: str) -> bool:
    """Whether the driver is one of this machine's (`here`) and its process is no more."""
    if lease.machine != here:
        return False
    try:
        return abs(psutil.Process(lease.process).create_time() - lease.began) > 1.0  # the number is another's by now
    except psutil.NoSuchProcess:
        return True


class Watch:
    """Tells from repeated looks which drivers are gone. `has_ended` says what is known of processes of this machine."""

    def __init__(self, has_ended: Callable[[Lease], bool]) -> None:
        self._has_ended = has_ended
        self._counts: dict[str, int] = {}
        self._silent: dict[str, float] = {}
        self._last: float | None = None

    def look(self, leases: Mapping[str, Lease], now: float, stored_now: float | None = None) -> frozenset[str]:
        """The drivers among those that hold `leases` which are gone.

        `now` is this process's own clock, `stored_now` the database's; both in seconds.
        """
        # A gap between two looks is one in which nobody may have been able to renew.
        passed = 0.0 if self._last is None else min(now - self._last, RENEW_SECONDS)
        self._last = now
        for driver, lease in leases.items():
            moved = self._counts.get(driver) != lease.count
            self._silent[driver] = 0.0 if moved else self._silent[driver] + passed
            self._counts[driver] = lease.count
        return frozenset(driver for driver, lease in leases.items() if self._is_gone(driver, lease, stored_now))

    def _is_gone(self, driver: str, lease: Lease, stored_now: float | None) -> bool:
        if self._silent[driver] >= LEASE_SECONDS or self._has_ended(lease):
            return True
        # So long ago that it has given up waiting for its storage: nobody need look on for a minute.
        return (
            stored_now is not None and lease.at is not None and stored_now - lease.at > lease.patience + LEASE_SECONDS
        )


def is_at_work(lease: Lease, stored_now: float | None) -> bool:
    """Whether a driver has renewed its lease lately, by the database's clock. One that has not may be cut off for a
    while: this is to tell people, and no reason to take its trials.
    """
    return stored_now is None or lease.at is None or stored_now - lease.at <= LEASE_SECONDS


def may_take(owner: str | None, me: str, known: Collection[str], gone: Collection[str]) -> bool:
    """Whether a running trial of `owner` is this driver's to take: its driver is gone, or holds no lease."""
    return owner != me and (owner is None or owner in gone or owner not in known)
