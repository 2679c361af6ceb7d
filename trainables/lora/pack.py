"""Several trials over one frozen base at once: one forward and one backward pass for all, everything else each its own.

What a trial learns is what it would have learnt alone, to rounding: data order, noise, timesteps and dropout are drawn
from its own seed, and rates, optimizer, schedule, accumulation, clipping and checkpoint are those of its own `Trial`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.lora import judging
from trainables.lora.course import Micro
from trainables.lora.engine import backward
from trainables.lora.ground import Ground, PackedTask, Panel
from trainables.lora.meter import Meter
from trainables.lora.packed_layers import Routing
from trainables.lora.randomness import Randomness
from trainables.lora.safety import out_of_memory_is_a_cause
from trainables.lora.shared_seats import Bench
from trainables.lora.trial import Trial
from trainables.protocol import Stepped, TrialContext, TrialFailure
from tune_lora.errors import InputErrors


@dataclass
class _Slot:
    number: int
    task: PackedTask
    trial: Trial
    likeness: tuple[Any, ...]


class Pack:
    """Trials that join, train together and leave, at any step and in any order, over one base.

    A slot's failure is its own: it is cut out, and said in `Stepped.failures`. What befalls the pack as a whole, such
    as a lack of memory, is raised by `step`; the pack is then to be closed, and its trials go on from their
    checkpoints.

    A slot's seconds are its share of the device's time; `clock` is what they are read from.
    """

    def __init__(self, ground: Ground, clock: Callable[[], float] = time.perf_counter) -> None:
        self._ground, self._routing = ground, Routing()
        self._meter = Meter(ground.device, clock)
        self._bench = Bench(self._routing)
        self._slots: dict[int, _Slot] = {}
        self._next = 0

    @property
    def slots(self) -> tuple[int, ...]:
        """Who is seated."""
        return tuple(self._slots)

    def differences(self, context: TrialContext) -> list[str]:
        """Why a trial cannot join, one line each; empty where it can."""
        found = self._ground.differences(context.params)
        if context.group is not None:
            found.append(
                f"devices: got a trial on {context.group.size} processes; must be one, to share a base with others"
            )
        return found

    def weight(self, context: TrialContext) -> float:
        """What a micro-batch of a trial costs beside another's: only proportions count."""
        return self._ground.weight(context.params)

    def join(self, context: TrialContext, state: Mapping[str, Any] | None = None) -> int:
        """Seats a trial, which begins with the next step; returns its slot. It goes on from `state`, what this or
        another pack's `state` gave, or from the context's checkpoint.

        Raises:
            InputErrors: it cannot share this base; every reason.
        """
        if found := self.differences(context):
            raise InputErrors(found)
        number, self._next = self._next, self._next + 1
        self._meter.begin()
        try:
            self._seat(number, context, state)
        except BaseException:
            self._meter.excuse(number)
            raise
        self._meter.charge({number: 1})
        return number

    def _seat(self, number: int, context: TrialContext, state: Mapping[str, Any] | None) -> None:
        chance = self._routing.randomness[number] = Randomness(self._ground.device)
        try:
            task = self._ground.task(context, self._bench.seats(number))
        except BaseException:
            del self._routing.randomness[number]
            raise
        trial = Trial(
            task, task.engine, context, self._ground.course(context.params),
            seeded=chance.begin, clock=functools.partial(self._meter.of, number),
        )  # fmt: skip
        self._slots[number] = _Slot(number, task, trial, self._ground.likeness(context.params))
        try:
            self._restore(number, context, state)
        except BaseException:
            self._take_out(number)
            raise

    def _restore(self, number: int, context: TrialContext, state: Mapping[str, Any] | None) -> None:
        trial = self._slots[number].trial
        if state is not None:
            trial.resume(state["trial"])
            self._routing.randomness[number].restore(state["chance"])
        elif context.restore is not None:
            trial.restore(context.restore)

    def leave(self, slot: int) -> None:
        """Takes a trial out; the others notice nothing."""
        self._meter.begin()
        self._take_out(slot)

    def _take_out(self, slot: int) -> None:
        self._slots.pop(slot).task.close()
        del self._routing.randomness[slot]
        self._meter.charge({slot: 1})
        self._meter.forget(slot)

    def close(self) -> None:
        """Takes everybody out; the base is what it was."""
        for slot in self.slots:
            self.leave(slot)

    def state(self, slot: int) -> dict[str, Any]:
        """All that a trial needs to continue exactly from here, on any pack of the same ground, also in the middle of
        an epoch or of an accumulation."""
        return {"trial": self._slots[slot].trial.state(), "chance": self._routing.randomness[slot].state()}

    def step(self, resting: frozenset[int] = frozenset()) -> Stepped:
        """One micro-batch of every trial that is neither complete nor `resting`; who completes an optimizer step takes
        it. Its seconds, over all slots, are those of the step, and of what joined and left since the last one.

        Raises:
            TrialFailure: the memory does not suffice for all of them.
        """
        stepped = Stepped()
        self._meter.begin()
        with out_of_memory_is_a_cause():
            asked = list(self._asked(resting, stepped))
            for group in self._ground.groups([(slot.task, micro.batch) for slot, micro in asked]):
                self._pass([asked[place] for place in group], stepped)
            self._report([slot for slot, _ in asked if slot.number in stepped.losses and slot.trial.is_due], stepped)
        for number in stepped.failures:
            self._take_out(number)
        self._meter.charge({slot.number: 1 for slot, _ in asked if slot.number in self._slots})
        stepped.seconds.update(self._meter.said())
        return stepped

    def _asked(self, resting: frozenset[int], stepped: Stepped) -> Iterator[tuple[_Slot, Micro]]:
        for slot in sorted(self._slots.values(), key=lambda slot: (slot.likeness, slot.number)):
            if slot.trial.is_complete or slot.number in resting:
                continue
            try:
                yield slot, slot.trial.next()
            except TrialFailure as failure:
                stepped.failures[slot.number] = failure
            self._meter.charge({slot.number: 1})

    def _pass(self, asked: Sequence[tuple[_Slot, Micro]], stepped: Stepped) -> None:
        """One forward and one backward pass for a group. A loss that is not finite is left out of the sum, and no
        product of either pass mixes rows of two trials. The way back costs each in proportion to its way there."""
        for slot, _ in asked:
            slot.trial.set_training()
        before = {slot.number: self._meter.of(slot.number) for slot, _ in asked}
        try:
            losses = self._ground.losses(
                [(slot.task, micro.batch) for slot, micro in asked], self._routing, self._meter.charge
            )
            weighted, seen = [], []
            for (slot, micro), loss in zip(asked, losses, strict=True):
                lane = slot.trial.lane
                try:
                    value = lane.seen(loss, micro.part)
                except TrialFailure as failure:
                    stepped.failures[slot.number] = failure
                    continue
                weighted.append(lane.scaled(loss) * micro.share)
                seen.append((slot, value))
            backward(weighted)
            self._meter.charge({slot.number: self._meter.of(slot.number) - before[slot.number] for slot, _ in seen})
        finally:
            self._routing.silence()
        for slot, value in seen:
            try:
                slot.trial.learnt(value)
            except TrialFailure as failure:
                stepped.failures[slot.number] = failure
                continue
            finally:
                self._meter.charge({slot.number: 1})
            stepped.losses[slot.number] = value

    def _report(self, due: Sequence[_Slot], stepped: Stepped) -> None:
        """All that are due at this step are judged together."""
        if not due:
            return
        for slot in self._slots.values():  # those that are not judged come back to training with their next pass
            slot.trial.set_judging()
        rows = sum(self._ground.weight(slot.trial.context.params) for slot in self._slots.values())
        panel = Panel(self._routing, self._meter.charge, self._bench.alone, int(rows))
        seated = {slot.number: (slot.task, slot.trial) for slot in due}
        for number, found in judging.reports(self._ground, seated, panel).items():
            if isinstance(found, TrialFailure):
                stepped.failures[number] = found
            else:
                stepped.reports[number] = found
