"""Which runs the figures are made of."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import QUICK
from benchmarks.search.runs import RUNS, Key, Row
from benchmarks.search.tasks import DEVELOPMENT

BY_TASK = Mapping[tuple[str, int], Row]


@dataclass(frozen=True)
class Plan:
    """`few` and `all` are the two budgets at which regret is told, in full trainings. `slow_seeds` are those of
    MOBSTER, which is run to `few` only.
    """

    tasks: tuple[str, ...]
    seeds: range
    slow_seeds: range
    few: int
    all: int
    folder: Path


FULL = Plan(DEVELOPMENT, range(10, 20), range(10, 13), 20, 50, RUNS)
SHORT = Plan(DEVELOPMENT[:2], range(10, 12), range(10, 11), 5, 10, Path("build/search-quick"))
PLAN = SHORT if QUICK else FULL


@dataclass(frozen=True)
class Group:
    """Runs of a method that belong together."""

    method: str
    variant: str = "plain"
    workers: int = 4

    def keys(self, plan: Plan) -> Iterator[Key]:
        """On the development tasks."""
        slow = self.method in SLOW
        seeds, budget = (plan.slow_seeds, plan.few) if slow else (plan.seeds, plan.all)
        for seed in seeds:
            for task in plan.tasks:
                yield Key(self.method, self.variant, task, seed, self.workers, budget)

    def rows(self, rows: Mapping[Key, Row], plan: Plan) -> BY_TASK:
        """The rows there are, by task and seed."""
        return {(key.task, key.seed): rows[key] for key in self.keys(plan) if key in rows}


SLOW = ("mobster", "mobster-1")
SYNE_TUNE = ("syne-asha", *SLOW)
COMPARED = (
    "random", "tpe1", "ray-1-4", "ray-3-3", "optuna-median", "optuna-hyperband", "optuna-halving", "syne-asha",
    "mobster", "ray-tpe", "tpe", "auto",
)  # fmt: skip
"""The lines of the main table."""
HELD_OUT = ("random", "tpe1", "ray-3-3", "tpe", "auto")
OURS = ("tpe", "auto")

GROUPS: tuple[Group, ...] = (
    *(Group(method) for method in COMPARED),
    *(Group(method, workers=8) for method in OURS),
    *(Group(method, variant) for variant in ("noisy", "failing") for method in ("ray-3-3", "ray-tpe", *OURS)),
    *(Group(method, "constrained") for method in ("refusing", "constraints", *OURS)),
    *(Group(method, variant) for variant in ("good-priors", "bad-priors") for method in OURS),
)


def keys(plan: Plan) -> list[Key]:
    """Every run of the plan that this environment can make. Those on held-out tasks are made by hand, once."""
    here = importlib.util.find_spec("syne_tune") is not None
    return [key for group in GROUPS if here or group.method not in SYNE_TUNE for key in group.keys(plan)]
