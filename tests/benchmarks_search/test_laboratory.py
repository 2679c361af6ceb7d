"""The laboratory: what a run, its variants and its rows promise. No data is needed: curves are made up here."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.search import runs, variants
from benchmarks.search.catalogue import METHODS
from benchmarks.search.plan import SLOW, SYNE_TUNE
from benchmarks.search.priors import configuration
from benchmarks.search.runs import Key, Row
from benchmarks.search.sampling import from_unit
from benchmarks.search.simulator import Start, Timeline, Verdict, simulate
from benchmarks.search.tasks import EPOCHS, INPUTS, SPACE, Task
from search_spaces.space import Space

DRAWS = from_unit(np.random.default_rng(0).uniform(size=(40_000, len(INPUTS))))
RATE = INPUTS.index("learning_rate")


def curves(inputs: np.ndarray) -> np.ndarray:
    """Best at a learning rate of 1e-2; half of what is left is learned every eight epochs."""
    final = 90 - 20 * np.abs(np.log10(inputs[:, RATE]) + 2)
    return final[:, None] * (1 - 0.5 ** (np.arange(1, EPOCHS + 1) / 8))


TASK = Task("made-up", Space.from_mapping(SPACE), curves, best=89.0, median=70.0)


class Once:
    """Starts the same configuration again and again and stops each at an epoch."""

    def __init__(self, stop_at: int = EPOCHS) -> None:
        self.stop_at, self.started = stop_at, 0
        self.seen: list[tuple[int, float]] = []

    def next(self) -> Start:
        self.started += 1
        return Start(str(self.started), configuration(DRAWS[0]))

    def report(self, trial: str, epoch: int, score: float, final: bool) -> Verdict:
        self.seen.append((epoch, score))
        return "stop" if epoch >= self.stop_at else "continue"


@pytest.mark.parametrize("workers", [1, 4])
def test_wall_time_is_budget_over_workers(workers: int) -> None:
    timeline = simulate(Once(), TASK, workers=workers, budget=20)
    wall, spent, _, _ = timeline.completed[-1]
    assert wall == pytest.approx(spent / workers, rel=0.1)
    assert 20 - workers <= spent <= 20


def test_what_is_stopped_early_costs_what_it_trained() -> None:
    method = Once(stop_at=13)
    timeline = simulate(method, TASK, workers=1, budget=5)
    assert not timeline.completed
    assert len(timeline.started) == 5 * EPOCHS // 13


def test_rules_as_columns_say_what_the_space_says() -> None:
    said = [not variants.ruled().violations(configuration(row)) for row in DRAWS[:400]]
    assert variants.is_feasible(DRAWS[:400]).tolist() == said


def test_the_variants_take_the_stated_shares_of_the_space() -> None:
    assert 1 - variants.is_feasible(DRAWS).mean() == pytest.approx(0.485, abs=0.01)
    assert 1 - variants.is_stable(DRAWS).mean() == pytest.approx(0.1, abs=0.006)


def test_what_fails_fails_after_two_to_five_epochs_and_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "measured", lambda self, name: self)
    task, rows = variants.failing(TASK, 0), DRAWS[:300]
    seen = np.array([task.curve(configuration(row)) for row in rows])
    failed = np.isnan(seen)
    assert (failed.any(axis=1) == ~variants.is_stable(rows)).all()
    first = failed[failed.any(axis=1)].argmax(axis=1)
    assert first.min() >= 2 and first.max() <= 5
    assert (np.diff(failed.astype(int), axis=1) >= 0).all()


def test_noise_is_seen_and_not_counted() -> None:
    task = variants.noisy(TASK, 3)
    params = configuration(DRAWS[1])
    seen = np.array([task.train(params)[0] for _ in range(200)])
    assert seen.std(axis=0).mean() == pytest.approx(variants.NOISE * (TASK.best - TASK.median), rel=0.1)
    assert task.train(params)[1] == TASK.curve(params)[-1]


def test_the_incumbent_is_chosen_by_what_was_seen_and_judged_by_what_counts() -> None:
    timeline = Timeline(completed=[(1.0, 4.0, 80.0, 81.0), (2.0, 8.0, 75.0, 83.0), (3.0, 12.0, 89.0, 82.0)])
    assert [step[2] for step in runs.trace(timeline, TASK)] == [TASK.regret(80.0), TASK.regret(75.0)]


def available(method: str) -> bool:
    return method not in SYNE_TUNE or importlib.util.find_spec("syne_tune") is not None


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(SLOW)))
def test_a_method_does_the_same_again_with_the_same_seed(name: str) -> None:
    if not available(name):
        pytest.skip("Syne Tune is not installed (`make bench-search-deps`)")
    entry = METHODS[name]
    first, again, other = (
        simulate(entry.build(TASK, seed), TASK, workers=entry.workers or 4, budget=6, seed=seed) for seed in (1, 1, 2)
    )
    assert first.started == again.started
    assert first.started != other.started
    assert first.completed and len(first.started) >= 6


@pytest.mark.parametrize("name", SLOW)
def test_mobster_begins_alike_with_the_same_seed(name: str) -> None:
    if not available(name):
        pytest.skip("Syne Tune is not installed (`make bench-search-deps`)")
    first, again = (simulate(METHODS[name].build(TASK, 1), TASK, workers=2, budget=1.5, seed=1) for _ in range(2))
    assert first.started == again.started
    assert len(first.started) >= 2


@pytest.mark.parametrize("name", ["refusing", "constraints", "tpe"])
def test_only_the_usual_ways_waste_suggestions(name: str) -> None:
    task = replace(TASK, space=variants.ruled())
    method = METHODS[name].build(task, 0)
    timeline = simulate(method, task, workers=4, budget=8)
    assert not any(task.space.violations(params) for _, params in timeline.started)
    assert (getattr(method, "wasted", 0) > 0) is (name != "tpe")


@pytest.mark.parametrize("name", ["random", "ray-3-3", "ray-tpe", "tpe"])
def test_methods_go_on_where_trials_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "measured", lambda self, _: self)
    task = variants.failing(TASK, 0)
    timeline = simulate(METHODS[name].build(task, 0), task, workers=4, budget=25)
    assert any(timeline.failed) and timeline.completed


TIMES = st.floats(0.001, 60, allow_nan=False)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    trace = draw(st.lists(st.tuples(TIMES, TIMES, st.floats(-0.1, 5)), max_size=6))
    ordered = zip(sorted(step[0] for step in trace), sorted(step[1] for step in trace), trace, strict=True)
    return Row(
        key=Key("tpe", "plain", "3945", draw(st.integers(0, 99)), draw(st.integers(1, 8)), 50),
        trace=tuple((wall, budget, step[2]) for wall, budget, step in ordered),
        trials=draw(st.integers(0, 999)), wasted=draw(st.integers(0, 99)), broken=0,
        failed=(draw(st.floats(0, 1)), 0.0),
        suggest=(0.1, 0.2, draw(st.floats(0, 9))), seconds=draw(TIMES),
    )  # fmt: skip


@given(rows())
@settings(max_examples=60)
def test_a_row_comes_back_to_four_digits(row: Row) -> None:
    back = Row.from_json(row.to_json())
    assert back.key == row.key and (back.trials, back.wasted) == (row.trials, row.wasted)
    np.testing.assert_allclose(back.trace, row.trace, rtol=1e-3)
    assert Row.from_json(back.to_json()) == back


@given(rows(), TIMES)
@settings(max_examples=60)
def test_regret_is_that_of_the_last_change(row: Row, at: float) -> None:
    before = [step[2] for step in row.trace if step[1] <= at + 1e-9]
    assert row.regret(at) == (before[-1] if before else 1.0)


def test_runs_that_exist_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Key] = []

    def run(key: Key) -> Row:
        made.append(key)
        return Row(key, ((1.0, 4.0, 0.5),), 3, (0.0, 0.0), 0, 0, (0.0, 0.0, 0.0), 0.1)

    monkeypatch.setattr(runs, "run", run)
    first = list(runs.keys(["random", "tpe"], ["plain"], ["3945"], range(2), 4, 50))
    runs.complete(first[:3], tmp_path)
    runs.complete(first, tmp_path)
    assert made == first
    assert set(runs.load(tmp_path)) == set(first)
    assert not math.isnan(sum(row.regret(20) for row in runs.load(tmp_path).values()))
    runs.forget({first[0], first[-1]}, tmp_path)
    runs.complete(first, tmp_path)
    assert made == [*first, first[0], first[-1]]


def test_several_at_a_time_find_what_one_finds(tmp_path: Path, data: Path) -> None:
    pytest.importorskip("onnxruntime")
    wanted = list(runs.keys(["random", "ray-tpe"], ["noisy"], ["3945"], [0], 4, 3))
    for jobs in (1, 2):
        runs.complete(wanted, tmp_path / str(jobs), jobs=jobs)
    one, two = (runs.load(tmp_path / str(jobs)) for jobs in (1, 2))
    assert set(one) == set(two) == set(wanted)
    assert all(one[key].trace == two[key].trace for key in wanted)
