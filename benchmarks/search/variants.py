"""Harder forms of a task: noise, a region that fails, rules; and tasks with earlier configurations to start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from types import CodeType
from typing import Any

import numpy as np

from benchmarks.search.priors import with_bad_priors, with_good_priors
from benchmarks.search.tasks import INPUTS, SPACE, Task
from search_spaces.space import Space

NOISE = 0.1
"""Standard deviation of the noise on every reported epoch, in units of regret (best minus median)."""
UNSTABLE_ABOVE = 0.15
"""Of the learning rate divided by one minus the momentum, its effective rate; a tenth of uniform draws lie above."""
RULES: tuple[dict[str, Any], ...] = (
    {
        "name": "high_rate_needs_decay",
        "when": "learning_rate > 1.0e-2",
        "require": ["weight_decay >= 0.02"],
        "reason": "a high learning rate needs regularisation",
    },
    {
        "name": "high_rate_momentum",
        "when": "learning_rate > 2.0e-2",
        "require": ["momentum <= 0.9"],
        "reason": "a high learning rate and a high momentum overshoot",
    },
    {
        "name": "wide_and_deep",
        "when": "max_units >= 384",
        "require": ["num_layers <= 3"],
        "reason": "wide and deep does not fit",
    },
    {
        "name": "deep_needs_small_batches",
        "when": "num_layers >= 4",
        "require": ["batch_size <= 160"],
        "reason": "deep networks do not converge with few updates",
    },
    {
        "name": "high_momentum_safety",
        "when": "momentum >= 0.75",
        "require": ["learning_rate <= 2.0e-2", "weight_decay >= 0.01", "batch_size >= 32", "max_dropout <= 0.8"],
        "reason": "a momentum of 0.75 or more is stable only with all of its safety settings",
    },
    {
        "name": "very_high_momentum_rate",
        "when": "momentum >= 0.95",
        "require": ["learning_rate <= 1.0e-3"],
        "reason": "a momentum of 0.95 or more explodes at a learning rate above 1e-3",
    },
    {
        "name": "high_dropout",
        "when": "max_dropout > 0.8",
        "require": ["learning_rate < 1.0e-2", "num_layers <= 3", "max_units >= 256", "momentum <= 0.9"],
        "reason": "a dropout above 0.8 only with every one of its conditions",
    },
    {
        "name": "units_equal_batch",
        "rule": "abs(max_units - batch_size) >= 16",
        "reason": "one value is not used for the other",
    },
)
"""Shaped like those of `lora_v2_1`: safety settings of one value, an equality that is forbidden. 48.6% of uniform draws
break one or more.
"""


def instability(inputs: np.ndarray) -> np.ndarray:
    """How far (n, 7) inputs are from stable: decimal logarithm of the effective rate over its limit."""
    rate, momentum = inputs[:, INPUTS.index("learning_rate")], inputs[:, INPUTS.index("momentum")]
    found: np.ndarray = np.log10(rate / (1 - momentum) / UNSTABLE_ABOVE)
    return found


def is_stable(inputs: np.ndarray) -> np.ndarray:
    """Which of (n, 7) inputs train to the end."""
    stable: np.ndarray = instability(inputs) <= 0
    return stable


def is_feasible(inputs: np.ndarray) -> np.ndarray:
    """Which of (n, 7) inputs keep the rules."""
    columns = dict(zip(INPUTS, inputs.T, strict=True))  # 500 times as fast as one by one
    kept = np.ones(len(inputs), bool)
    for when, must in _clauses():
        kept &= eval(must, {}, columns) | ~(eval(when, {}, columns) if when else kept.dtype.type(True))
    return kept


@cache
def _clauses() -> tuple[tuple[CodeType | None, CodeType], ...]:
    clauses = (clause for rule in ruled().constraints for clause in rule.clauses)
    return tuple(
        (_compiled(clause.when.text) if clause.when else None, _compiled(clause.must.text)) for clause in clauses
    )


def _compiled(text: str) -> CodeType:
    return compile(text, text, "eval")


@cache
def ruled() -> Space:
    """The space with the rules."""
    return Space.from_mapping({**SPACE, "constraints": list(RULES)})


def noisy(task: Task, seed: int) -> Task:
    """Gaussian noise on every epoch; the final score is counted without it."""
    draws = np.random.default_rng([seed, 1])
    sigma = NOISE * (task.best - task.median)

    def change(_: Mapping[str, Any], curve: np.ndarray) -> np.ndarray:
        return curve + draws.normal(0, sigma, len(curve))

    return task.changed(change, "noisy")


def failing(task: Task, _seed: int) -> Task:
    """A tenth of the space ends in NaN after two to five epochs, the sooner the less stable it is."""
    return task.changed(_fail, "failing").measured(f"{task.name}-failing")


def _fail(params: Mapping[str, Any], curve: np.ndarray) -> np.ndarray:
    above = float(instability(np.array([[params[name] for name in INPUTS]], float))[0])
    if above <= 0:
        return curve
    seen = curve.copy()
    seen[2 + int(3 * np.exp(-4 * above)) :] = np.nan
    return seen


def constrained(task: Task, _seed: int) -> Task:
    """Rules shaped like those of `lora_v2_1`; regret is that within what they leave."""
    name = f"{task.name}-constrained"
    return replace(task, name=name, space=ruled()).measured(name)


VARIANTS: Mapping[str, Callable[[Task, int], Task]] = {
    "plain": lambda task, _: task,
    "noisy": noisy,
    "failing": failing,
    "constrained": constrained,
    "good-priors": with_good_priors,
    "bad-priors": with_bad_priors,
}
"""A task and a seed to the task as it is searched."""
