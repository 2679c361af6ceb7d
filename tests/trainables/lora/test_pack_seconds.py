"""Whose seconds the device's are: every second of a pack is somebody's, and each pays for what is done for it."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.lora.small_ground import MICROS, SmallGround, context
from trainables.lora.meter import Meter
from trainables.lora.pack import Pack
from trainables.protocol import Cause

CPU = torch.device("cpu")


class Clock:
    """Goes on when it is told to; by `each` at every reading, too."""

    def __init__(self, each=0.0):
        self.now, self.each = 100.0, each

    def __call__(self):
        self.now += self.each
        return self.now


class Costly(SmallGround):
    """Work takes so many seconds: an adapter's making, a pass for each row, a measuring."""

    def __init__(self, clock, *, joins=0.0, row=0.0, measures=0.0, harm=None):
        super().__init__(harm)
        self.clock, self.joins, self.row, self.measures = clock, joins, row, measures

    def task(self, given, seats):
        self.clock.now += self.joins
        task = super().task(given, seats)
        validate = task.validate

        def measured():
            self.clock.now += self.measures
            return validate()

        task.validate = measured
        return task

    def losses(self, asked, routing, charge):
        self.clock.now += self.row * sum(batch.local for _, batch in asked)
        return super().losses(asked, routing, charge)


def test_a_pass_is_paid_by_rows_a_joining_once_and_a_report_by_its_trial():
    clock = Clock()
    pack = Pack(Costly(clock, joins=7.0, row=2.0, measures=30.0), clock)
    one, three = pack.join(context({"batch": 1}, 0)), pack.join(context({"batch": 3, "units": 9}, 1))
    assert pack.step().seconds == {one: 9.0, three: 13.0}
    for _ in range(MICROS - 2):
        assert pack.step().seconds == {one: 2.0, three: 6.0}
    stepped = pack.step()
    assert set(stepped.reports) == {one, three}
    assert stepped.seconds == {one: 32.0, three: 36.0}
    assert pack.step(resting=frozenset({one})).seconds == {three: 6.0}


def test_the_way_back_costs_in_proportion_to_the_way_there():
    clock = Clock()

    class Behind(Costly):
        """Backward takes ten seconds."""

        def losses(self, asked, routing, charge):
            found = super().losses(asked, routing, charge)
            found[0].register_hook(lambda _: setattr(clock, "now", clock.now + 10.0))
            return found

    pack = Pack(Behind(clock, row=1.0), clock)
    one, four = pack.join(context({"batch": 1}, 0)), pack.join(context({"batch": 4}, 1))
    assert pack.step().seconds == pytest.approx({one: 3.0, four: 12.0})


def test_who_fails_pays_for_what_it_took_and_nobody_else_does():
    clock = Clock()
    pack = Pack(Costly(clock, joins=1.0, row=2.0, harm={1: lambda loss: loss * math.nan}), clock)
    sound, broken = pack.join(context({"batch": 2}, 0)), pack.join(context({"batch": 2}, 1))
    stepped = pack.step()
    assert stepped.failures[broken].cause is Cause.NAN_LOSS
    assert stepped.seconds == {sound: 5.0, broken: 5.0}
    assert pack.step().seconds == {sound: 4.0}


def test_what_a_leaving_slot_has_not_been_told_yet_is_said_with_the_next_step():
    clock = Clock()
    pack = Pack(Costly(clock, joins=3.0, row=1.0), clock)
    stays, leaves = pack.join(context({}, 0)), pack.join(context({}, 1))
    pack.leave(leaves)
    assert pack.step().seconds == {stays: 5.0, leaves: 3.0}


def test_who_cannot_be_seated_is_charged_nothing(tmp_path):
    clock = Clock()
    pack = Pack(Costly(clock, joins=3.0, row=1.0), clock)
    with pytest.raises(FileNotFoundError):
        pack.join(context({}, 0, restore=tmp_path))
    slot = pack.join(context({}, 1))
    assert pack.step().seconds == {slot: 5.0}


@settings(max_examples=20, deadline=None)
@given(data=st.data(), batches=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_all_seconds_are_somebodys(data, batches):
    """Of a clock that goes on at each of its readings, nothing is lost and nothing is counted twice."""
    clock, said = Clock(each=1.0), 0.0
    pack = Pack(SmallGround({0: lambda loss: loss * math.nan} if data.draw(st.booleans()) else None), clock)
    expected = 0.0

    def lasts(action):
        nonlocal expected
        before = clock.now
        found = action()
        expected += clock.now - before - 1.0  # the first reading begins it
        return found

    for seed, batch in enumerate(batches):
        lasts(lambda seed=seed, batch=batch: pack.join(context({"batch": batch}, seed)))
    for number in range(2 * MICROS):
        resting = frozenset(data.draw(st.sets(st.sampled_from(pack.slots)))) if pack.slots else frozenset()
        if not set(pack.slots) - resting or all(
            pack._slots[one].trial.is_complete for one in set(pack.slots) - resting
        ):
            continue
        said += math.fsum(lasts(lambda resting=resting: pack.step(resting)).seconds.values())
        if number == 2 and pack.slots:
            lasts(lambda: pack.leave(pack.slots[0]))
    said += math.fsum(pack._meter.said().values())
    assert said == pytest.approx(expected, rel=1e-12)


def test_a_time_limit_counts_a_trials_own_seconds_and_a_checkpoint_keeps_them(tmp_path):
    clock = Clock()
    ground = Costly(clock, row=1.0, measures=5.0)
    pack = Pack(ground, clock)
    slot = pack.join(context({"batch": 2}, 0, tmp_path))
    pack.join(context({"batch": 4, "units": 9}, 1))
    clock.now += 1000.0  # between steps the device is nobody's
    reports = itertools.chain.from_iterable(pack.step().reports.items() for _ in range(MICROS))
    report = next(found for number, found in reports if number == slot)
    report.save(tmp_path)
    assert torch.load(tmp_path / "engine.pt")["more"]["seconds"] == 2 * MICROS + 5
    assert pack.state(slot)["trial"]["more"]["seconds"] == 2 * MICROS + 5
    again = Pack(ground, clock)
    back = again.join(context({"batch": 2}, 0, tmp_path, restore=tmp_path))
    assert again._slots[back].trial.spent == 2 * MICROS + 5
    again.step()
    assert again._slots[back].trial.spent == 2 * MICROS + 7


def test_a_time_limit_ends_the_trial_whose_own_time_is_up(monkeypatch):
    clock = Clock()
    ground = Costly(clock, row=1.0)
    course = ground.course
    monkeypatch.setattr(ground, "course", lambda params: dataclasses.replace(course(params), timeout_seconds=7.0))
    pack = Pack(ground, clock)
    small, large = pack.join(context({"batch": 1}, 0)), pack.join(context({"batch": 4}, 1))
    pack.step()
    pack.step()
    stepped = pack.step()
    assert {number: failure.cause for number, failure in stepped.failures.items()} == {large: Cause.TRIAL_TIMEOUT}
    assert set(stepped.losses) == {small}


def test_a_charge_of_nothing_is_shared_evenly_and_one_of_nobody_waits():
    clock = Clock()
    meter = Meter(CPU, clock)
    meter.begin()
    clock.now += 4.0
    meter.charge({})
    meter.charge({1: 0.0, 2: 0.0})
    assert meter.said() == {1: 2.0, 2: 2.0}
    assert meter.said() == {} and meter.of(1) == 2.0
