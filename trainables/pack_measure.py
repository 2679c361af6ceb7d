"""Measures how many trials of a study should share a base, in a process of its own that does nothing else."""

from __future__ import annotations

import operator
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from statistics import fmean, median

from trainables import gpu_memory, high_water
from trainables.pack_size import MOST, Need, PackSize, Room, Sized, alone, decided, obstacle
from trainables.protocol import Cause, Pack, Packing, TrialContext, TrialFailure
from tune_lora.errors import InputError

WARM_UP, ROUND, TURNS = 2, 4, 3
"""Steps of a pack before the clock counts, steps of a turn (as many as most trials accumulate), and turns."""
PATIENCE_SECONDS = 20.0
"""For the turns of one pack; one is always measured."""
_HEAVY_STEPS = 2
_TINY = 1e-9

Clock = Callable[[], float]


def measured(
    trainer: Packing, typical: Sequence[TrialContext], heaviest: TrialContext, *, room: Room, share: float = 1.0,
    beside: int = 0, most: int = MOST, clock: Clock = time.perf_counter,
) -> PackSize:  # fmt: skip
    """Trains packs of 1, 2, 4, ... trials for a few steps each, until more do not pay or do not fit.

    `typical` configurations are what is timed, the same ones at each size: one after another, then in pairs, and so on;
    where a pack is larger than there are configurations, each sits there several times with another seed. All should
    have a horizon far beyond these steps. `heaviest` is what memory is counted by: of a GPU's there is a `share` at
    most, and of RAM each trial takes some bytes `beside` the pack, in its own process.

    Raises:
        TrialFailure: a trial cannot be trained at all.
    """
    try:
        pack = trainer.pack(heaviest)
    except InputError as error:  # of several reasons the first
        return alone(str(error).splitlines()[0])
    try:
        if (why := next(iter(pack.differences(heaviest)), None)) is not None:
            return alone(why)
        sharing = _sharing(pack, typical, heaviest)
        return _grown(pack, sharing, heaviest, room=_on_the_device(room, share), beside=beside, most=most, clock=clock)
    finally:
        pack.close()


def _grown(
    pack: Pack, typical: Sequence[TrialContext], heaviest: TrialContext, *, room: Room, beside: int, most: int,
    clock: Clock,
) -> PackSize:  # fmt: skip
    high_water.give_back()
    empty = Need(high_water.held(), _gpu_held())
    found: list[Sized] = []
    while True:
        size = 2 * found[-1].size if found else 1
        try:
            of_pack = _needed(pack, [_again(heaviest, number) for number in range(size)], clock)
            need = replace(of_pack, memory=of_pack.memory + size * beside)
            if found and (shortage := room.shortage(need)) is not None:
                return decided(found, f"{size} trials {shortage}")
            found = _with(found, size, need, _gain(pack, typical, size, clock) if size > 1 else (0.0, 0.0))
        except TrialFailure as failure:
            if failure.cause is not Cause.OUT_OF_MEMORY:
                raise
            said = f"{size} did not fit into memory ({failure.message})"
            return decided(found, said) if found else alone(said)
        if (why := obstacle(empty, found, room, most)) is not None:
            return decided(found, why)


def _with(found: Sequence[Sized], size: int, need: Need, gained: tuple[float, float]) -> list[Sized]:
    """A size more. What one trial gives by itself is known once two were measured against it."""
    gain, of_half = gained
    before = [replace(found[0], rate=of_half)] if size == 2 else list(found)
    return [*before, Sized(size, gain * before[-1].rate if before else 0.0, need)]


def _sharing(pack: Pack, typical: Sequence[TrialContext], heaviest: TrialContext) -> list[TrialContext]:
    """Those that can share the base, cut to a power of two so that packs of all sizes hold the same; where none can,
    the heaviest."""
    found = [context for context in typical if not pack.differences(context)] or [heaviest]
    return found[: 2 ** (len(found).bit_length() - 1)]


def _again(context: TrialContext, times: int) -> TrialContext:
    """The same configuration with other chance."""
    return replace(context, seed=context.seed + 1000 * times)


# --- memory ----------------------------------------------------------------------------------------------------------


def _needed(pack: Pack, contexts: Sequence[TrialContext], clock: Clock) -> Need:
    """The peak of a few steps of these trials together."""
    _forget_peaks()
    with _bench(pack, contexts, clock) as bench:
        high_water.set_back()  # some trials set it back themselves when they join
        bench.seconds(range(len(contexts)), _HEAVY_STEPS)
        return Need(high_water.mark(), gpu_memory.peak())


def _forget_peaks() -> None:
    high_water.give_back()
    if gpu_memory.is_used():
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _gpu_held() -> int:
    _forget_peaks()
    return gpu_memory.peak()


def _on_the_device(room: Room, share: float) -> Room:
    return replace(room, gpu=min(room.gpu, share * gpu_memory.whole())) if gpu_memory.is_used() else room


# --- speed -----------------------------------------------------------------------------------------------------------


def _gain(pack: Pack, typical: Sequence[TrialContext], size: int, clock: Clock) -> tuple[float, float]:
    """How many times the samples a second packs of a size give, beside packs of half the size; and those of the halves,
    in samples a second. Both train the same trials, in turns, so that whatever else happens on the machine befalls
    both."""
    groups = list(_packs(typical, size))
    turns = [_turns(pack, contexts, clock) for contexts in groups]
    halves, wholes = ([sum(one[part] for one in turn) for turn in zip(*turns, strict=False)] for part in (0, 1))
    samples = sum(pack.weight(context) for contexts in groups for context in contexts)
    return median(map(operator.truediv, halves, wholes)), samples / median(halves)


def _packs(typical: Sequence[TrialContext], size: int) -> Iterator[list[TrialContext]]:
    """The configurations in packs of a size, both powers of two: each once, or as often as it takes to fill one."""
    several = [_again(context, times) for times in range(max(1, size // len(typical))) for context in typical]
    for start in range(0, len(several), size):
        yield several[start : start + size]


def _turns(pack: Pack, contexts: Sequence[TrialContext], clock: Clock) -> list[tuple[float, float]]:
    """Seconds of a step of one half and then of the other, and of a step of all, turn by turn."""
    middle, spent, found = len(contexts) // 2, 0.0, list[tuple[float, float]]()
    with _bench(pack, contexts, clock) as bench:
        parts = (range(middle), range(middle, len(contexts)), range(len(contexts)))
        for part in parts:
            bench.seconds(part, WARM_UP)
        while len(found) < TURNS and (not found or spent < PATIENCE_SECONDS):
            started = clock()
            first, second, both = (bench.seconds(part, ROUND) for part in parts)
            spent += clock() - started
            found.append((max(first + second, _TINY), max(both, _TINY)))
    return found


class _Bench:
    """Trials on the base, of which some rest while others are timed."""

    def __init__(self, pack: Pack, contexts: Sequence[TrialContext], clock: Clock) -> None:
        self._pack, self._contexts, self._clock = pack, contexts, clock
        self._slots = [pack.join(context) for context in contexts]

    def seconds(self, places: range, steps: int) -> float:
        """Seconds of a step of those at some places: the mean, so that the optimizer's steps count for those who
        accumulate. Steps in which somebody reported, and so was measured, are left out where there are others."""
        timed = [self._step(places) for _ in range(steps)]
        return fmean([seconds for seconds, reported in timed if not reported] or [seconds for seconds, _ in timed])

    def _step(self, places: range) -> tuple[float, bool]:
        active = {self._slots[place] for place in places}
        started = self._clock()
        stepped = self._pack.step(frozenset(self._pack.slots) - active)
        _wait_for_the_device()
        seconds = self._clock() - started
        for place in places:
            report = stepped.reports.get(self._slots[place])
            if self._slots[place] in stepped.failures or (report is not None and report.final):
                self._begin_again(place)
        return seconds, bool(stepped.reports)

    def _begin_again(self, place: int) -> None:
        """Who is complete or failed sits down anew, so that the pack stays as large."""
        if self._slots[place] in self._pack.slots:
            self._pack.leave(self._slots[place])
        self._slots[place] = self._pack.join(self._contexts[place])


@contextmanager
def _bench(pack: Pack, contexts: Sequence[TrialContext], clock: Clock) -> Generator[_Bench, None, None]:
    """The trials on the base for the block, and nobody after it."""
    try:
        with _lack_of_memory_is_a_cause():
            yield _Bench(pack, contexts, clock)
    finally:
        for slot in pack.slots:
            pack.leave(slot)


def _wait_for_the_device() -> None:
    if gpu_memory.is_used():
        import torch

        torch.cuda.synchronize()


def _lack_of_memory_is_a_cause() -> AbstractContextManager[None]:
    if "torch" not in sys.modules:
        return nullcontext()
    from trainables.lora.safety import out_of_memory_is_a_cause

    return out_of_memory_is_a_cause()
