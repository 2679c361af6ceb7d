"""Who is gone: pure rules, on clocks of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tune_lora import leases
from tune_lora.leases import LEASE_SECONDS, RENEW_SECONDS, Lease, Watch, may_take

LEASE = Lease(count=1, machine="there", process=7, began=0.0, patience=600.0)
ALIVE: Callable[[Lease], bool] = lambda _: False  # noqa: E731 - a rule, not a function


def test_a_lease_that_stands_still_runs_out() -> None:
    watch = Watch(ALIVE)
    now, gone = 0.0, frozenset[str]()
    while now <= LEASE_SECONDS + RENEW_SECONDS and not gone:
        gone = watch.look({"a": LEASE}, now)
        now += 1.0
    assert gone == {"a"}
    assert now >= LEASE_SECONDS


@given(st.lists(st.floats(0.1, 30.0), min_size=1, max_size=60), st.integers(1, 4))
def test_a_driver_that_renews_in_time_is_never_gone(gaps: list[float], every: int) -> None:
    """However unevenly it is looked at, as long as it renews before the lease is over."""
    watch, now, count, silent = Watch(ALIVE), 0.0, 0, 0.0
    for step, gap in enumerate(gaps):
        now, silent = now + gap, silent + gap
        if step % every == 0 or silent >= LEASE_SECONDS:
            count, silent = count + 1, 0.0
        assert not watch.look({"a": replace(LEASE, count=count)}, now)


@given(st.floats(0.0, 1e6))
def test_an_outage_takes_no_lease(outage: float) -> None:
    """Nobody can renew while the storage is away; each has time to do so afterwards."""
    watch = Watch(ALIVE)
    watch.look({"a": LEASE}, 0.0)
    assert not watch.look({"a": LEASE}, outage)
    assert not watch.look({"a": LEASE}, outage + RENEW_SECONDS + 10.0)
    assert not watch.look({"a": replace(LEASE, count=2)}, outage + RENEW_SECONDS + 11.0)


def test_one_that_has_given_up_waiting_is_gone_at_once() -> None:
    left = replace(LEASE, at=1000.0)
    over = 1000.0 + LEASE.patience + LEASE_SECONDS
    assert not Watch(ALIVE).look({"a": left}, 0.0, over)
    assert Watch(ALIVE).look({"a": left}, 0.0, over + 1.0) == {"a"}


def test_a_process_of_this_machine_that_ended_is_gone_at_once() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = leases.machine()
    mine = leases.mine(600.0)
    dead, reused = replace(mine, process=ended.pid), replace(mine, began=mine.began - 1000.0)
    held = {"me": mine, "dead": dead, "reused": reused, "elsewhere": replace(dead, machine="there")}
    gone = Watch(lambda lease: leases.has_ended(lease, here)).look(held, 0.0)
    assert gone == {"dead", "reused"}
    assert mine.process == os.getpid()


def test_what_may_be_taken() -> None:
    assert may_take("b", "a", known={"a", "b"}, gone={"b"})
    assert may_take("b", "a", known={"a"}, gone=())  # it left
    assert may_take(None, "a", known={"a"}, gone=())
    assert not may_take("b", "a", known={"a", "b"}, gone=())
    assert not may_take("a", "a", known={"a"}, gone=())


@given(st.integers(0, 10**9), st.floats(0, 1e9), st.none() | st.floats(0, 1e10))
def test_a_lease_is_read_back_as_it_was_written(count: int, began: float, at: float | None) -> None:
    written = Lease(count, "here", 3, began, 60.0, at)
    assert Lease.from_mapping(written.as_mapping()) == written
