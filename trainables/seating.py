"""Which host a trial sits down at. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class Offer:
    """What a host has for a trial: how many of its `seats` are `free`, whether it `fits` on a base that is there, what
    a micro-batch of it costs, and what those of its neighbours would (`weights`, one a neighbour)."""

    free: int
    seats: int
    fits: bool
    own: float
    weights: tuple[float, ...] = ()


def in_order(offers: Mapping[str, Offer]) -> list[str]:
    """Hosts with a free seat, the best first.

    A base that the trial can share goes before one that it cannot. Then an empty host, since an idle device is the
    greatest waste; then neighbours whose steps take as long as its own: in a step together the short one waits for the
    long one. A neighbour twice as heavy counts as much as a host that is all full against one that is all free.
    """
    free = [name for name, offer in offers.items() if offer.free > 0]
    return sorted(free, key=lambda name: (not offers[name].fits, _distance(offers[name])))


def _distance(offer: Offer) -> float:
    if not offer.weights:
        return 0.0
    unlike = abs(math.log2(offer.own / fmean(offer.weights)))
    return unlike + len(offer.weights) / offer.seats
