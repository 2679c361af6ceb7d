"""How many trials share a base follows from what was measured, and says why in one line."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.pack_size import GAIN, Need, PackSize, Room, Sized, decided, forecast, obstacle

GIB = 1024**3
NO_BOUND = Room()
EMPTY = Need(10 * GIB, 12 * GIB)


def packs(*speeds: float, seat: float = 1.0) -> list[Sized]:
    """Packs of 1, 2, 4, ... of these speeds, each trial of which needs so many GiB of both memories."""
    return [
        Sized(2**step, 5 * speed, Need(10 * GIB + int(seat * 2**step * GIB), 12 * GIB + int(seat * 2**step * GIB)))
        for step, speed in enumerate(speeds)
    ]


def grown(found: list[Sized], room: Room, most: int = 16) -> PackSize:
    """As the one who measures asks: until something keeps from more."""
    for tried in range(1, len(found) + 1):
        if (why := obstacle(EMPTY, found[:tried], room, most)) is not None:
            return decided(found[:tried], why)
    raise AssertionError("nothing keeps from more than was measured")


def test_it_grows_while_it_pays_and_says_so() -> None:
    size = grown(packs(1, 1.4, 1.9, 2.3, 2.4), NO_BOUND)
    assert size.size == 8
    assert size.why == (
        "packing: 8 trials share a base: 2.3 times the samples per second of one "
        "(2: 1.4, 4: 1.9, 8: 2.3; 16 would be 2.4, not 10% more)"
    )


def test_one_that_does_not_pay_at_all_is_off() -> None:
    size = grown(packs(1, 1.04), NO_BOUND)
    assert size.size == 1
    assert size.why == (
        "packing: off: two trials on one base are 1.04 times as fast as one after the other, not 10% faster"
    )


def test_memory_that_ends_first_is_named() -> None:
    size = grown(packs(1, 1.8, 2.6, seat=1.0), Room(math.inf, 20 * GIB, margin=0.15))
    assert size.size == 4
    assert size.why.endswith("(2: 1.8, 4: 2.6; 8 trials would need 20.0 GiB of GPU memory and 15% more, of 20.0)")


def test_no_room_for_two() -> None:
    size = grown(packs(0), Room(12 * GIB, math.inf, margin=0.15))
    assert size.size == 1
    assert size.why == "packing: off: 2 trials would need 12.0 GiB of RAM and 15% more, of 12.0"


def test_the_most_is_the_most() -> None:
    assert grown(packs(1, 2, 4, 8), NO_BOUND, most=8).size == 8
    assert grown(packs(1, 2, 4, 8), NO_BOUND, most=8).why.endswith("8 is the most that is tried)")
    assert grown(packs(1, 2, 4), NO_BOUND, most=7).size == 4


@pytest.mark.parametrize(("sizes", "needs"), [(1, 12), (2, 14), (3, 18)])
def test_a_seat_more_costs_what_the_last_ones_cost(sizes: int, needs: int) -> None:
    assert forecast(EMPTY, packs(*[1.0] * sizes)) == Need(needs * GIB, (needs + 2) * GIB)


def test_memory_that_seems_to_shrink_is_no_seat_given_back() -> None:
    assert forecast(Need(10), [Sized(1, 1, Need(9))]) == Need(9)


speeds = st.lists(st.floats(0.01, 100), min_size=1, max_size=5)
rooms = st.builds(Room, st.floats(1, 200).map(lambda gib: gib * GIB), st.just(math.inf), st.floats(0, 4))


@given(speeds, st.floats(0, 8), rooms, st.integers(1, 16))
def test_what_is_chosen_was_measured_paid_and_fits(measured: list[float], seat: float, room: Room, most: int) -> None:
    found = packs(*measured, *[measured[-1]], seat=seat)  # the last doubling brings nothing
    size = grown(found, room, most)
    assert size.size in {one.size for one in found} and size.size <= max(1, most)
    chain = [one for one in found if one.size <= size.size]
    for before, one in pairwise(chain):
        assert one.rate >= GAIN * before.rate - 1e-6
    if size.size > 1:  # what it needs was forecast to fit before it was tried
        assert room.shortage(forecast(EMPTY, chain[:-1])) is None
    assert "\n" not in size.why and size.why.startswith("packing: ")
    assert (size.size == 1) == size.why.startswith("packing: off")


@given(speeds, rooms)
def test_more_room_never_makes_fewer(measured: list[float], room: Room) -> None:
    found = packs(*measured, *[measured[-1]])
    assert grown(found, room).size <= grown(found, NO_BOUND).size


@given(speeds)
def test_it_is_kept_as_it_is(measured: list[float]) -> None:
    size = decided(packs(*measured), "that is all")
    assert PackSize.from_mapping(json.loads(json.dumps(asdict(size)))) == size
