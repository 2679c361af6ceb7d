"""Latin-hypercube strata: each share of a parameter's range is tried once in every round of trials."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def strata(names: Sequence[str], number: int, n_strata: int, seed: int) -> dict[str, float]:
    """For trial `number` (from 0), where in its range (0 to 1) each of the named parameters is to be.

    Every `n_strata` trials in a row are a round. In a round each parameter has one trial in each of `n_strata` equal
    parts of its range, at a random place in the part, in a random order that is its own. The same arguments give the
    same places, so a study that is continued goes on in the middle of a round.
    """
    turn, place = divmod(number, n_strata)
    rng = np.random.default_rng([seed, turn])
    found = {}
    for name in names:
        order, within = rng.permutation(n_strata), rng.random(n_strata)
        found[name] = float((order[place] + within[place]) / n_strata)
    return found
