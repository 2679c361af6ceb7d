"""Latin-hypercube strata: each share of a parameter's range is tried once in every round of trials."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EVERY = 3
"""After start-up one trial in so many goes on with the strata, so that a rare region keeps its share."""
ROUND = 10
"""Parts of the range where a sampler has no start-up."""


def strata_of_trial(names: Sequence[str], number: int, n_startup: int, seed: int) -> dict[str, float]:
    """Where in their ranges (0 to 1) trial `number` (from 0) has the named parameters; empty where the sampler chooses.

    All of the first `n_startup` trials have their stratum, and then one in `EVERY`.
    """
    later = max(number - n_startup, 0)
    if later % EVERY:
        return {}
    return strata(names, min(number, n_startup) + later // EVERY, n_startup or ROUND, seed)


def strata(names: Sequence[str], number: int, n_strata: int, seed: int) -> dict[str, float]:
    """For the `number`-th place (from 0), where in its range (0 to 1) each of the named parameters is to be.

    Every `n_strata` places in a row are a round. In a round each parameter has one place in each of `n_strata` equal
    parts of its range, somewhere in the part, in a random order that is its own. The same arguments give the
    same places, so a study that is continued goes on in the middle of a round.
    """
    turn, place = divmod(number, n_strata)
    rng = np.random.default_rng([seed, turn])
    found = {}
    for name in names:
        order, within = rng.permutation(n_strata), rng.random(n_strata)
        found[name] = float((order[place] + within[place]) / n_strata)
    return found
