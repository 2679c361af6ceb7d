"""How the cost of a suggestion grows with the trials that a study has: the sampler and its memory, without a cluster.

CPU time of this process; studies of all sizes take turns, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.common import QUICK, result, write
from search_spaces import points
from search_spaces.feasible import feasible_sampler
from search_spaces.space import Space
from tune_lora import store
from tune_lora.memory import Memory

SIZES = (100, 1_000, 2_000) if QUICK else (100, 1_000, 10_000)
SUGGESTIONS = 5 if QUICK else 15
SAMPLERS = ("tpe", "auto", "random", "grid", "qmc", "nsgaii", "cmaes", "gp")
SLOW = ("gp",)
"""Fewer suggestions are measured."""
BOUNDED = ("tpe", "auto")


class Grown:
    """A memory that has been told so many trials, a third of them complete, the others stopped at a rung."""

    def __init__(self, sampler: str, n: int) -> None:
        self._space, self._rng = Space.load("lora_v2_1"), np.random.default_rng(0)
        drawer = feasible_sampler(self._space, sampler, seed=0, horizon=lambda params: int(params["max_train_epochs"]))
        self._memory = Memory(self._space, drawer, "minimize")
        self._trials = [self._trial(number, points.draw(self._space, self._rng)) for number in range(n)]
        self._memory.learn(self._trials)
        self.suggest()  # the first takes in all that was told

    def suggest(self) -> float:
        """Milliseconds of CPU that one suggestion took, the telling of its end included."""
        began = time.process_time()
        params, drawn = self._memory.draw()
        drawing = time.process_time() - began
        trial = self._trial(len(self._trials), params)
        self._trials.append(trial)
        began = time.process_time()
        self._memory.bind(trial.number, drawn)
        self._memory.learn(self._trials, [trial])
        return 1e3 * (drawing + time.process_time() - began)

    def _trial(self, number: int, params: dict[str, object]) -> FrozenTrial:
        score, distributions = float(self._rng.random()), self._space.distributions()
        trial = create_trial(
            state=TrialState.PRUNED if number % 3 else TrialState.COMPLETE,
            value=score,
            params=params,
            distributions={name: distributions[name] for name in params},
            intermediate_values={3: score + 0.3, 6: score + 0.1},
            user_attrs={store.CONFIG: self._space.resolve(params)},
        )
        trial.number = number
        return trial


def measure(sampler: str) -> list[float]:
    """Median milliseconds of CPU a suggestion at each of the sizes."""
    grown = [Grown(sampler, n) for n in SIZES]
    taken = [[one.suggest() for one in grown] for _ in range(3 if sampler in SLOW else SUGGESTIONS)]
    return [round(statistics.median(column), 2) for column in zip(*taken, strict=True)]


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = {sampler: measure(sampler) for sampler in SAMPLERS}
    growth = {sampler: round(found[sampler][-1] / found[sampler][-2], 2) for sampler in BOUNDED}
    worst = max(growth, key=lambda sampler: growth[sampler])
    told = "; ".join(f"`{sampler}` {', '.join(map(str, costs))}" for sampler, costs in found.items())
    write(
        "suggest_scale",
        [
            result(
                "suggest_growth",
                measured=growth[worst],
                goal="<= 1.5",
                unit="ratio",
                runs=SUGGESTIONS,
                note=f"CPU of a suggestion at {SIZES[-1]} trials by that at {SIZES[-2]}, the worst of "
                f"{', '.join(f'`{sampler}` ({growth[sampler]})' for sampler in BOUNDED)}, lora_v2_1; milliseconds at "
                f"{', '.join(map(str, SIZES))} trials: {told}",
            )
        ],
    )
