"""How many trials share a base: what follows from what was measured. Pure.

The number is doubled while a doubling brings a tenth more samples a second, and while the memory suffices for a pack of
those configurations that need the most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import Any

GAIN = 1.1
"""Samples a second with twice as many trials, beside those with as many, for which it pays."""
MOST = 16
_GIB = 1024**3
_TINY = 1e-9


@dataclass(frozen=True)
class Need:
    """Bytes of RAM and of GPU memory at the peak; of GPU memory 0 where there is none."""

    memory: int
    gpu: int = 0


@dataclass(frozen=True)
class Room:
    """Bytes that a pack may take, `margin` of its need kept free beside it; no bound where nobody said one."""

    memory: float = math.inf
    gpu: float = math.inf
    margin: float = 0.0

    def shortage(self, need: Need) -> str | None:
        """What is wanting, in words; None where it suffices."""
        for name, wanted, there in (("GPU memory", need.gpu, self.gpu), ("RAM", need.memory, self.memory)):
            if wanted * (1 + self.margin) > there:
                return f"would need {wanted / _GIB:.1f} GiB of {name} and {self.margin:.0%} more, of {there / _GIB:.1f}"
        return None


@dataclass(frozen=True)
class Sized:
    """A pack that was measured: how many trials, samples a second of all together (0: not measured), and what one needs
    in which each is the configuration that needs the most."""

    size: int
    rate: float
    need: Need


@dataclass(frozen=True)
class PackSize:
    """How many trials are to share a base, 1 where none are; all that was measured; and `why`, one line for people."""

    size: int
    why: str
    measured: tuple[Sized, ...] = field(default=())

    @classmethod
    def from_mapping(cls, plain: Mapping[str, Any]) -> PackSize:
        """Out of what `dataclasses.asdict` made of one, also when it has been through JSON."""
        found = (Sized(one["size"], one["rate"], Need(**one["need"])) for one in plain["measured"])
        return cls(plain["size"], plain["why"], tuple(found))


def alone(why: str) -> PackSize:
    """No sharing, before anything was measured."""
    return PackSize(1, f"packing: off: {why}")


def forecast(empty: Need, measured: Sequence[Sized]) -> Need:
    """What twice as many need as were measured last: each of them what one of the last doubling cost. `empty` is a base
    with nobody on it."""
    last = measured[-1]
    before, fewer = (measured[-2].need, measured[-2].size) if len(measured) > 1 else (empty, 0)
    more = last.size / (last.size - fewer)

    def doubled(of_last: int, of_before: int) -> int:
        return of_last + math.ceil(max(0, of_last - of_before) * more)

    return Need(doubled(last.need.memory, before.memory), doubled(last.need.gpu, before.gpu))


def pays(measured: Sequence[Sized]) -> bool:
    """Whether the last doubling brought enough."""
    return len(measured) < 2 or measured[-1].rate >= GAIN * measured[-2].rate - _TINY


def obstacle(empty: Need, measured: Sequence[Sized], room: Room, most: int) -> str | None:
    """Why twice as many as were measured last are not tried; None where they are."""
    if not pays(measured):
        return _too_little(measured)
    doubled = 2 * measured[-1].size
    if doubled > most:
        return f"{measured[-1].size} is the most that is tried"
    shortage = room.shortage(forecast(empty, measured))
    return None if shortage is None else f"{doubled} trials {shortage}"


def decided(measured: Sequence[Sized], obstacle: str) -> PackSize:
    """The largest number up to which each doubling paid. `obstacle` is what kept from trying more."""
    paid = takewhile(bool, (pays(pair) for pair in pairwise(measured)))
    size = measured[sum(paid)].size
    if size == 1:
        return PackSize(1, f"packing: off: {obstacle}", tuple(measured))
    speeds = {one.size: one.rate / measured[0].rate for one in measured}
    steps = ", ".join(f"{many}: {speed:.1f}" for many, speed in speeds.items() if 1 < many <= size)
    why = f"packing: {size} trials share a base: {speeds[size]:.1f} times the samples per second of one"
    return PackSize(size, f"{why} ({steps}; {obstacle})", tuple(measured))


def _too_little(measured: Sequence[Sized]) -> str:
    before, last = measured[-2:]
    speed = last.rate / measured[0].rate
    return f"{last.size} would be {speed:.1f}, not {GAIN - 1:.0%} more" if before.size > 1 else _no_faster(speed)


def _no_faster(speed: float) -> str:
    return f"two trials on one base are {speed:.2f} times as fast as one after the other, not {GAIN - 1:.0%} faster"
