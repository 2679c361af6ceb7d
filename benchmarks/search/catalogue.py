"""Every method of the laboratory by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import optuna

from benchmarks.search import syne
from benchmarks.search.methods import ours, stock
from benchmarks.search.optuna_alone import alone, refusing
from benchmarks.search.simulator import Method
from benchmarks.search.tasks import Task


@dataclass(frozen=True)
class Entry:
    """A method: what the tables call it, how it is made for a task and a seed, and its number of workers where that
    is its own.
    """

    label: str
    build: Callable[[Task, int], Method]
    workers: int | None = None


def _univariate(seed: int) -> optuna.samplers.TPESampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=False)


def _tpe(seed: int) -> optuna.samplers.TPESampler:
    return optuna.samplers.TPESampler(seed=seed)


METHODS: Mapping[str, Entry] = {
    "random": Entry(
        "random, full training", lambda task, seed: alone(task, seed, optuna.samplers.RandomSampler(seed=seed))
    ),
    "tpe1": Entry("one-at-a-time TPE, full training", lambda task, seed: alone(task, seed, _tpe(seed)), workers=1),
    "ray-1-4": Entry(
        "stock Ray: OptunaSearch + ASHA(grace 1, eta 4)", lambda task, seed: stock(task, seed, grace=1, eta=4)
    ),
    "ray-3-3": Entry(
        "stock Ray: OptunaSearch + ASHA(grace 3, eta 3)", lambda task, seed: stock(task, seed, grace=3, eta=3)
    ),
    "ray-tpe": Entry(
        "univariate TPE + ASHA(6, 3) in Ray",
        lambda task, seed: stock(task, seed, grace=6, eta=3, sampler=_univariate(seed)),
    ),
    "optuna-median": Entry(
        "Optuna: TPE + MedianPruner", lambda task, seed: alone(task, seed, _tpe(seed), optuna.pruners.MedianPruner())
    ),
    "optuna-hyperband": Entry(
        "Optuna: TPE + HyperbandPruner",
        lambda task, seed: alone(task, seed, _tpe(seed), optuna.pruners.HyperbandPruner()),
    ),
    "optuna-halving": Entry(
        "Optuna: TPE + SuccessiveHalvingPruner",
        lambda task, seed: alone(task, seed, _tpe(seed), optuna.pruners.SuccessiveHalvingPruner()),
    ),
    "syne-asha": Entry("Syne Tune: ASHA", syne.asha),
    "mobster": Entry("Syne Tune: MOBSTER, grace 6", lambda task, seed: syne.mobster(task, seed, grace=6)),
    "mobster-1": Entry("Syne Tune: MOBSTER, grace 1", lambda task, seed: syne.mobster(task, seed, grace=1)),
    "refusing": Entry("univariate TPE + ASHA(6, 3), `TrialPruned`", lambda task, seed: refusing(task, seed, "pruned")),
    "constraints": Entry(
        "univariate TPE + ASHA(6, 3), `set_constraint`", lambda task, seed: refusing(task, seed, "constraints")
    ),
    "tpe": Entry("tune-lora `sampler: tpe`", lambda task, seed: ours(task, seed, sampler="tpe")),
    "auto": Entry("tune-lora `sampler: auto`", lambda task, seed: ours(task, seed, sampler="auto")),
}
