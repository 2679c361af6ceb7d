"""What a host knows of the trials that sit there, and what it tells them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from trainables.protocol import Pack, Report, TrialContext, TrialFailure


@dataclass(frozen=True)
class Said:
    """What a host has to say of a trial, with the `seconds` of the device since it last said something.

    One of: a `report` (without `save`; `saves` says whether there is one); a `failure` or an `error`, which end it;
    `again`, why it must sit down again and go on from its newest checkpoint, then as a `suspect` where it may be what
    broke the others; `preempted`, the host was told to end.
    """

    seconds: float = 0.0
    report: Report | None = None
    saves: bool = False
    failure: TrialFailure | None = None
    error: Exception | None = None
    again: str = ""
    suspect: bool = False
    preempted: bool = False


@dataclass
class Room:
    """A pack, and what outlives its trials."""

    pack: Pack
    shared: dict[str, Any]


@dataclass
class Guest:
    """A trial that has sat down. It rests from its report until somebody asks for the next one."""

    token: int
    context: TrialContext
    room: Room
    slot: int
    heard: float
    is_suspect: bool
    is_seated: bool = True
    seconds: float = 0.0
    report: Report | None = None
    said: Said | None = None

    @property
    def is_resting(self) -> bool:
        """Whether it has reported, and nobody has asked for more."""
        return self.report is not None

    def weight(self) -> float:
        """What a micro-batch of it costs."""
        return self.room.pack.weight(self.context)


@dataclass
class Order:
    """What another thread wants done to the packs."""

    work: Callable[[], Any]
    done: Future[Any] = field(default_factory=Future)

    def carry_out(self) -> None:
        """Does it; whoever waits gets the answer, or the error."""
        try:
            self.done.set_result(self.work())
        except Exception as error:  # noqa: BLE001  # it is the caller's, who waits for it
            self.done.set_exception(error)
