"""A host: one thread that trains a pack, and the seats in it for trials that live elsewhere. Knows nothing of Ray.

A trial sits down (`join`), is trained until its next report, fetches that (`next`), has its checkpoint written
(`save`), and rests until it asks for the next report; the others train on meanwhile. Whoever sits down or leaves does
so between two steps of the pack, and nobody waits for them.

All that is done to a pack is done by the host's own thread; the methods here are called by other threads, and wait.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainables.pack_guests import Guest, Order, Room, Said
from trainables.protocol import Cause, Packing, TrialContext, TrialFailure
from trainables.seating import Offer

SILENCE_SECONDS = 120.0
"""How long a trial keeps its seat that nobody asks about: whoever had it is gone, or will find it gone and sit down
again."""
_PULSE_SECONDS = 1.0


class PackHost:
    """Trains up to `seats` trials of a trainer at a time, with `threads` CPU threads in all.

    A trial that cannot share the base of the others gets another one beside it, if it finds no other host. `seats` gets
    smaller where the memory does not suffice. `at_fault` is called when the host itself breaks, and serves nobody more.
    """

    def __init__(
        self, trainer: Packing, seats: int, threads: int = 1, at_fault: Callable[[], None] = lambda: None
    ) -> None:
        self.seats, self._at_fault = seats, at_fault
        self._trainer, self._threads = trainer, threads
        self._changed = threading.Condition()
        self._orders: list[Order] = []
        self._rooms: list[Room] = []
        self._guests: dict[int, Guest] = {}
        self._tokens = 0
        self._is_leaving = self._is_closed = False
        self._thread = threading.Thread(target=self._live, name="pack", daemon=True)
        self._thread.start()

    # --- asked by other threads ---------------------------------------------------------------------------------------

    def offer(self, context: TrialContext) -> Offer:
        """What this host has for a trial; answers at once."""
        with self._changed:
            seated, rooms = self._seated(), list(self._rooms)
        fits = not seated or any(not room.pack.differences(context) for room in rooms)
        weights = tuple(guest.weight() for guest in seated)
        own = rooms[0].pack.weight(context) if rooms else 1.0
        free = 0 if self._is_leaving else max(0, self.seats - len(seated))
        return Offer(free, self.seats, fits, own, weights)

    def join(self, context: TrialContext, *, is_suspect: bool = False) -> int | None:
        """Seats a trial before the next step; returns its token, or None where no seat is free.

        Raises:
            InputErrors: it can share a base with nobody.
            TrialFailure: it cannot be trained.
        """
        token: int | None = self._ordered(lambda: self._seat(context, is_suspect))
        return token

    def next(self, token: int, patience: float) -> Said | None:
        """What there is to say of a trial next; None where there is nothing yet, after `patience` seconds."""
        with self._changed:
            guest = self._guests.get(token)
            if guest is None:
                return Said(again="its seat was given to another, as nobody had asked about it")
            guest.heard = time.monotonic()
            if guest.said is None and guest.is_resting:
                self._go_on(guest)
            self._changed.wait_for(lambda: guest.said is not None, patience)
            guest.heard = time.monotonic()
            said, guest.said = guest.said, None
            if said is not None and said.report is None:
                del self._guests[token]
            return said

    def _go_on(self, guest: Guest) -> None:
        """Its report was fetched, and more is asked for; of a host that is leaving it goes elsewhere."""
        guest.report = None
        if self._is_leaving:
            guest.is_seated, guest.said = False, Said(preempted=True)
        self._changed.notify_all()

    def save(self, token: int, folder: Path) -> None:
        """Writes the checkpoint of the report that was fetched last; the others train on.

        Raises:
            KeyError: the trial no longer sits here.
        """
        report = self._guests[token].report
        if report is None or report.save is None:
            raise KeyError(token)
        report.save(folder)

    def leave(self, token: int) -> None:
        """Takes a trial out before the next step; one that is gone already is no mistake."""
        self._give(Order(lambda: self._dismiss(token)))

    def preempt(self) -> None:
        """Sends everybody away: the machine will be taken."""
        self._ordered(self._send_all_away)

    def close(self) -> None:
        """Ends the thread; nobody is asked."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def is_empty(self) -> bool:
        """Whether nobody is here who could still ask for something."""
        return not self._guests

    def _ordered(self, work: Callable[[], Any]) -> Any:
        self._give(order := Order(work))
        return order.done.result()

    def _give(self, order: Order) -> None:
        with self._changed:
            if self._is_closed:
                raise RuntimeError("this host is closed")
            self._orders.append(order)
            self._changed.notify_all()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            self._serve()
        except BaseException:
            traceback.print_exc()
            self._at_fault()  # else all who sit here would wait for ever
            raise

    def _serve(self) -> None:
        while not self._is_closed:
            with self._changed:
                self._changed.wait_for(lambda: self._orders or self._is_closed or self._trains(), _PULSE_SECONDS)
                orders, self._orders = self._orders, []
            for order in orders:
                order.carry_out()
            self._dismiss_the_silent()
            for room, guests in list(self._turns()):
                self._step(room, guests)
        for room in self._rooms:
            room.pack.close()

    def _all(self) -> list[Guest]:
        with self._changed:  # others take out whom they have heard the last of
            return list(self._guests.values())

    def _seated(self) -> list[Guest]:
        return [guest for guest in self._all() if guest.is_seated]

    def _trains(self) -> bool:
        return any(not guest.is_resting for guest in self._seated())

    def _turns(self) -> Iterator[tuple[Room, list[Guest]]]:
        """Who makes a step together: suspects one by one, so that it is known whom a fault belongs to."""
        for room in self._rooms:
            here = [guest for guest in self._seated() if guest.room is room and not guest.is_resting]
            yield from ((room, [guest]) for guest in here if guest.is_suspect)
            if rest := [guest for guest in here if not guest.is_suspect]:
                yield room, rest

    def _step(self, room: Room, guests: list[Guest]) -> None:
        resting = frozenset(room.pack.slots) - {guest.slot for guest in guests}
        try:
            stepped = room.pack.step(resting)
        except TrialFailure as failure:
            self._fell_short(guests, failure)
            return
        except Exception as error:  # noqa: BLE001  # a bug of one of them, with whom it must end
            self._broke(guests, error)
            return
        for guest in self._all():
            if guest.room is room:  # also whoever sat down before this step, and was not in it
                guest.seconds += stepped.seconds.get(guest.slot, 0.0)
        for guest in guests:
            if (failure_of := stepped.failures.get(guest.slot)) is not None:
                guest.is_seated = False
                self._say(guest, Said(failure=failure_of))
            elif (report := stepped.reports.get(guest.slot)) is not None:
                guest.report, guest.is_suspect = report, False
                self._say(guest, Said(report=replace(report, save=None), saves=report.save is not None))

    def _fell_short(self, guests: list[Guest], failure: TrialFailure) -> None:
        """What befell the pack is the trial's own where it was alone; else fewer sit here from now on."""
        if len(seated := self._seated()) == 1 or failure.cause is not Cause.OUT_OF_MEMORY:
            for guest in guests:
                self._stand_up(guest, Said(failure=failure))
            return
        self.seats = max(1, len(seated) - 1)
        line = f"{len(seated)} trials on one base were too many for the memory; from now on {self.seats}"
        for guest in guests:
            self._stand_up(guest, Said(again=line))

    def _broke(self, guests: list[Guest], error: Exception) -> None:
        error.add_note(traceback.format_exc())
        if len(guests) == 1:
            self._stand_up(guests[0], Said(error=error))
            return
        line = f"something broke in a step of {len(guests)} trials ({type(error).__name__}: {error})"
        for guest in guests:
            self._stand_up(guest, Said(again=line, suspect=True))

    def _stand_up(self, guest: Guest, said: Said) -> None:
        """Takes a trial out that will be told why."""
        if guest.slot in guest.room.pack.slots:
            guest.room.pack.leave(guest.slot)
        guest.is_seated = False
        self._say(guest, said)

    def _say(self, guest: Guest, said: Said) -> None:
        with self._changed:
            guest.said, guest.seconds = replace(said, seconds=guest.seconds), 0.0
            self._changed.notify_all()

    # --- seats --------------------------------------------------------------------------------------------------------

    def _seat(self, context: TrialContext, is_suspect: bool) -> int | None:
        for guest in self._all():
            if guest.context.folder == context.folder:  # whoever had this trial was lost
                self._dismiss(guest.token)
        if self._is_leaving or len(self._seated()) >= self.seats:
            return None
        try:
            room = self._room_for(context)
            slot = room.pack.join(self._here(context, room.shared))
        except TrialFailure as failure:
            if failure.cause is not Cause.OUT_OF_MEMORY or not self._seated():
                raise
            self.seats = len(self._seated())
            return None
        self._tokens += 1
        guest = Guest(self._tokens, context, room, slot, time.monotonic(), is_suspect)
        with self._changed:
            self._guests[guest.token] = guest
        return guest.token

    def _room_for(self, context: TrialContext) -> Room:
        """A pack that a trial can join; where there is none, a new one in place of those that nobody uses."""
        for room in self._rooms:
            if not room.pack.differences(context):
                return room
        for room in [room for room in self._rooms if not room.pack.slots]:
            room.pack.close()
            room.shared.clear()
            self._rooms.remove(room)
        shared: dict[str, Any] = {}
        room = Room(self._trainer.pack(self._here(context, shared)), shared)
        self._rooms.append(room)
        return room

    def _here(self, context: TrialContext, shared: dict[str, Any]) -> TrialContext:
        return replace(context, shared=shared, threads=self._threads)

    def _dismiss(self, token: int) -> None:
        with self._changed:
            guest = self._guests.pop(token, None)
        if guest is not None and guest.slot in guest.room.pack.slots and guest.is_seated:
            guest.room.pack.leave(guest.slot)

    def _dismiss_the_silent(self) -> None:
        now = time.monotonic()
        for guest in self._all():
            if now - guest.heard > SILENCE_SECONDS:
                self._dismiss(guest.token)

    def _send_all_away(self) -> None:
        self._is_leaving = True
        for guest in self._seated():
            if guest.said is None:  # else its report is fetched first
                self._stand_up(guest, Said(preempted=True))
