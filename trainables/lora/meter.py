"""Who a device works for: the seconds of a pack, divided among its slots."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

Charge = Callable[[Mapping[int, float]], None]
"""Says for which slots, in which proportion, the device has worked since the last reading."""


def for_nobody(shares: Mapping[int, float]) -> None:
    """A charge of whoever is alone and keeps no account."""


class Meter:
    """A clock that is read wherever the work turns to other slots. What passes between two readings is charged to
    somebody, so that the seconds of all slots are those between `begin` and the last `charge`, to rounding.

    A GPU has done its work before the clock is read.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self._device, self._clock = device, clock
        self._read = 0.0
        self._spent: dict[int, float] = {}
        self._unsaid: dict[int, float] = {}

    def begin(self) -> None:
        """What has passed until now is nobody's."""
        self._read = self._now()

    def charge(self, shares: Mapping[int, float]) -> None:
        """What has passed since the last reading is theirs, in this proportion; of nobody it waits for the next
        charge."""
        if not shares:
            return
        now = self._now()
        seconds, self._read = now - self._read, now
        total = sum(shares.values())
        for slot, share in shares.items():
            mine = seconds * (share / total if total else 1 / len(shares))
            self._spent[slot] = self.of(slot) + mine
            self._unsaid[slot] = self._unsaid.get(slot, 0.0) + mine

    def of(self, slot: int) -> float:
        """Seconds of a slot since it was seated."""
        return self._spent.get(slot, 0.0)

    def said(self) -> dict[int, float]:
        """Seconds by slot that have not been said before, also of those that have left."""
        found, self._unsaid = self._unsaid, {}
        return found

    def forget(self, slot: int) -> None:
        """A slot that has left; what is unsaid of it stays to be said."""
        self._spent.pop(slot, None)

    def excuse(self, slot: int) -> None:
        """A slot that was never seated: nothing is said of it."""
        self.forget(slot)
        self._unsaid.pop(slot, None)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()
