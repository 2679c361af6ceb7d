"""Benchmarks of packs: what counts in them is measured as it is said, and each part of them runs."""

from __future__ import annotations

import pytest

from benchmarks import packing_processes, together
from benchmarks.packing_processes import Worker
from benchmarks.together import Worked


def test_rates_of_processes_add_up() -> None:
    worked = [Worked((0.0, 9.0), ((1.0, 3.0), (4.0, 6.0))), Worked((0.5, 9.0), ((1.0, 9.0),))]
    assert together.rate([40, 80], worked) == 40 / 4.0 + 80 / 8.0


def test_nothing_counts_that_was_measured_beside_an_idle_core() -> None:
    worked = [Worked((0.0, 9.0), ((1.0, 8.0),)), Worked((0.0, 7.5), ((1.0, 7.0),))]
    with pytest.raises(ValueError, match="another was idle"):
        together.rate([40, 40], worked)


def test_every_side_trains_the_same_trials_on_two_threads() -> None:
    for side, workers in packing_processes.SIDES.items():
        assert sum(worker.threads for worker in workers) == 2, side
        assert {number for worker in workers for number in range(worker.first, worker.last)} == set(range(8)), side


def test_processes_take_turns_and_are_measured_while_all_are_busy() -> None:
    sides = {
        "processes": (Worker("alone", 0, 1, 1), Worker("alone", 1, 2, 1)),
        "pack": (Worker("packed", 0, 2, 1),),
    }
    rates = packing_processes.measure(sides, runs=2, steps=2)
    assert {side: len(found) for side, found in rates.items()} == {"processes": 2, "pack": 2}
    assert all(rate > 0 for found in rates.values() for rate in found)


def test_the_figure_is_the_median_of_paired_ratios() -> None:
    rates = {"processes": [10.0, 20.0, 10.0], "packs of 4": [15.0, 40.0, 13.0]}
    rates |= {"pack of 8": [5.0, 10.0, 5.0], "packs of 8": [10.0, 20.0, 10.0]}
    found = {one["name"]: (one["measured"], one["ok"]) for one in packing_processes.figures(rates)}
    assert found["packed_vs_processes"] == (1.5, True)
    assert found["packed_one_vs_processes"] == (0.5, False)


def test_a_process_that_cannot_train_is_said_with_its_reason() -> None:
    chatty = "import sys; print('a library'); sys.stdin.readline(); print('failed: out of memory')"
    with (
        together.started(["timeit", "-n", "1", "-r", "1", chatty], {}) as process,
        pytest.raises(together.Failed) as said,
    ):
        together.measured([process], 1)
    assert str(said.value) == "out of memory"
