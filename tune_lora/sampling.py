"""What a study would try, without training: the real sampler on a study in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from search_spaces.feasible import FeasibleSampler, feasible_sampler
from search_spaces.space import Space

TOLD_AT_MOST = 100
"""Results told to the sampler. Studies have tens of trials, and TPE's time per suggestion grows with each of them."""


def suggestions(
    space: Space,
    n: int,
    seed: int = 0,
    *,
    told: bool = True,
    sampler: str = "tpe",
    n_startup_trials: int = 10,
    using: FeasibleSampler | None = None,
) -> Iterator[dict[str, Any]]:
    """`n` resolved configurations: parameters, derived and fixed values.

    With `told`, the second half is drawn after the sampler was told results: a made-up score, the same for the same
    seed, for up to `TOLD_AT_MOST` of the first half. `using` takes the place of the named sampler, for whoever wants to
    read its counts. A grid that has fewer points ends early.
    """
    drawing = using or feasible_sampler(space, sampler, seed=seed, n_startup_trials=n_startup_trials)
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, sampler=drawing)
    scores = np.random.default_rng(seed)
    waiting: list[int] = []
    for index in range(n):
        if drawing.exhausted(study):
            return
        if told and index == n // 2:
            for number in waiting[:TOLD_AT_MOST]:
                study.tell(number, float(scores.uniform()))
        trial = study.ask()
        config = space.resolve(space.suggest(trial))
        if told and index < min(n // 2, TOLD_AT_MOST):
            waiting.append(trial.number)
        else:
            study.tell(trial.number, state=TrialState.FAIL)  # a suggestion only: nothing to learn from it
        yield config
