"""Trials that share a base: the hosts that train them, for the duration of a search."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from cluster.connect import options
from trainables.protocol import Packing, Trainer
from trainables.ray_host import Hosted, Hosts, light
from tune_lora.placing import Slots


@dataclass(frozen=True)
class Trains:
    """Who trains a trial, what it asks Tune for, and how many may run as of now."""

    trainer: Trainer
    asked: dict[str, float]
    limit: Callable[[], int]


@contextmanager
def training(trainer: Trainer, placed: Slots) -> Generator[Trains, None, None]:
    """Each trial on its own, or the trials of `placed` on their hosts, which end with this block."""
    if placed.seats < 2 or not isinstance(trainer, Packing):
        yield Trains(trainer, placed.asked, placed.limit)
        return
    hosts = Hosts(
        trainer,
        placed.seats,
        resources=options(placed.trial),
        threads=placed.threads,
        mark=placed.mark,
        name=f"tune-lora-host-{secrets.token_hex(4)}",
    )

    def limit() -> int:
        """As many as have a seat at a host that has begun; where none has yet, those of the first."""
        most = placed.limit()
        return min(most, max(1, hosts.ensure(-(-most // placed.seats))) * placed.seats)

    try:
        limit()
        yield Trains(Hosted(trainer, hosts.prefix), light(), limit)
    finally:
        hosts.close()
