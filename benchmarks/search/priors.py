"""Earlier configurations a search may start from: good ones of other tasks, and bad ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from benchmarks.search.sampling import from_unit
from benchmarks.search.tasks import DEVELOPMENT, INPUTS, SPACE, Task, final_scores
from search_spaces.space import Prior

POOL = 2000
COUNT = 5


def with_good_priors(task: Task, seed: int) -> Task:
    """The task with the best of 2000 random configurations of each of five *other* development tasks."""
    others = [name for name in DEVELOPMENT if name != task.name]
    chosen = np.random.default_rng([seed, 2]).choice(others, COUNT, replace=False)
    return _with(task, (_pool(str(name))[0][0] for name in chosen), "good-priors")


def with_bad_priors(task: Task, seed: int) -> Task:
    """The task with five configurations of the worst decile of its own 2000 random ones."""
    inputs, _ = _pool(task.name)
    chosen = np.random.default_rng([seed, 3]).choice(POOL // 10, COUNT, replace=False)
    return _with(task, (inputs[-1 - place] for place in chosen), "bad-priors")


@cache
def _pool(task: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (2000, 7) and final scores (2000,) of a task's random configurations, the best first."""
    inputs = from_unit(np.random.default_rng([int(task), 0]).uniform(size=(POOL, len(INPUTS))))
    scores = final_scores(task, inputs)
    order = np.argsort(-scores, kind="stable")
    return inputs[order], scores[order]


def _with(task: Task, rows: Iterable[np.ndarray], name: str) -> Task:
    priors = tuple(Prior(f"earlier_{place}", configuration(row)) for place, row in enumerate(rows))
    return replace(task, name=f"{task.name}-{name}", space=replace(task.space, priors=priors))


def configuration(row: np.ndarray) -> Mapping[str, Any]:
    """Parameters by name from inputs, shape (7,)."""
    whole = {name for name, domain in SPACE["parameters"].items() if domain["type"] == "int"}
    return {name: int(value) if name in whole else float(value) for name, value in zip(INPUTS, row, strict=True)}
