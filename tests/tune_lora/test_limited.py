"""How many trials run at a time follows what fits, up and down, and is otherwise the searcher's own business."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from ray.tune.search import Searcher

from cluster.connect import Watched
from cluster.spec import Capacity, Node, TrialResources
from tune_lora import placing
from tune_lora.limited import Limited
from tune_lora.spec import ResourcesSpec


class Counting(Searcher):
    """Suggests so many trials and remembers what it was told."""

    def __init__(self, trials: int) -> None:
        super().__init__()
        self.left, self.told = trials, list[str]()

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if not self.left:
            return str(Searcher.FINISHED)
        self.left -= 1
        return {"params": {}}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.told.append(trial_id)


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=40))
def test_never_more_than_fit_and_always_as_many_as_do(steps):
    room, running, begun = [1], list[str](), 0
    inner = Counting(1000)
    limited = Limited(inner, lambda: room[0])
    for fits, one_ends in steps:
        room[0] = fits
        if one_ends and running:
            limited.on_trial_complete(ended := running.pop(0), {})
            assert inner.told[-1] == ended
        before = len(running)
        while limited.suggest(f"trial-{begun}") is not None:
            running.append(f"trial-{begun}")
            begun += 1
        assert len(running) == max(before, fits), "those that run are never stopped"


def test_the_end_of_the_search_is_handed_on():
    limited = Limited(Counting(1), lambda: 5)
    assert limited.suggest("a") == {"params": {}}
    assert limited.suggest("b") == Searcher.FINISHED


def slots(monkeypatch, nodes, **resources):
    there = [Capacity.of(tuple(Node("n", float(cpus), 0.0) for cpus in nodes))]
    monkeypatch.setattr(Watched, "__call__", lambda _: there[0])
    placed = placing.fixed(ResourcesSpec(**resources), TrialResources(1, 0), there[0])
    return placed, lambda *cpus: there.__setitem__(0, Capacity.of(tuple(Node("n", float(one), 0.0) for one in cpus)))


def test_the_limit_follows_nodes_that_join_and_leave(monkeypatch):
    placed, becomes = slots(monkeypatch, [2])
    assert (placed.count, placed.limit()) == (2, 2)
    becomes(2, 4)
    assert placed.limit() == 6
    becomes(1)
    assert placed.limit() == 1
    becomes()
    assert placed.limit() == 1, "one waits, so that Ray sees that a node is wanted"


def test_a_number_is_the_most_whatever_joins(monkeypatch):
    placed, becomes = slots(monkeypatch, [4], concurrent=3)
    becomes(4, 4)
    assert placed.limit() == 3
    becomes(2)
    assert placed.limit() == 2


def test_who_waits_for_nodes_asks_for_one_more_than_there_is_room_for(monkeypatch):
    placed, becomes = slots(monkeypatch, [2], wait_hours=1)
    assert placed.limit() == 3
    becomes(2, 2)
    assert placed.limit() == 5
    most, _ = slots(monkeypatch, [2], wait_hours=1, concurrent=2)
    assert most.limit() == 2
