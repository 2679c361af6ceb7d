"""Which two trials a rater is shown next. Pure.

First every trial is seen once. Then the pair whose answer tells the most under the present model is asked for; every
sixth time one that the rater has judged already comes again with its sides changed, which measures the rater.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tune_lora.preferences import Judgement, fit, information, outcomes

REPEAT_EVERY = 6
"""One of so many pairs of a rater comes a second time."""
_LONG_AGO = 4  # judgements after which a pair may come again: one that was just seen is remembered, not judged
PER_TRIAL = 3
"""Pairs that are asked for, a trial."""


@dataclass(frozen=True)
class Shown:
    """Two trials by number, as they stand on the page."""

    left: int
    right: int

    @property
    def pair(self) -> tuple[int, int]:
        """The two, whichever side they are on."""
        return min(self.left, self.right), max(self.left, self.right)


def planned(trials: int) -> int:
    """How many pairs of so many trials are worth asking for."""
    return min(PER_TRIAL * trials, trials * (trials - 1) // 2 * 2)


def next_pair(trials: Sequence[int], judgements: Sequence[Judgement], rater: str, draw: random.Random) -> Shown:
    """The pair that `rater` is shown next, of at least two trials, given everybody's judgements in order."""
    mine = [one for one in judgements if one.rater == rater]
    seen = {trial for one in judgements for trial in one.pair}
    unseen = [trial for trial in trials if trial not in seen]
    if not unseen and (again := _to_repeat(trials, mine, draw)) is not None:
        return Shown(again.right, again.left)
    first, second = _unseen(trials, unseen, draw) or _telling(trials, judgements, mine[-1:], draw)
    return Shown(first, second) if draw.random() < 0.5 else Shown(second, first)


def _unseen(trials: Sequence[int], unseen: list[int], draw: random.Random) -> tuple[int, int] | None:
    if not unseen:
        return None
    first = draw.choice(unseen)
    others = [trial for trial in unseen if trial != first] or [trial for trial in trials if trial != first]
    return first, draw.choice(others)


def _to_repeat(trials: Sequence[int], mine: Sequence[Judgement], draw: random.Random) -> Judgement | None:
    """An old judgement to be asked for again; None where it is not time for one."""
    times = Counter(one.pair for one in mine)
    repeated = sum(count - 1 for count in times.values())
    if repeated >= len(mine) // REPEAT_EVERY:
        return None
    old = [one for one in mine[:-_LONG_AGO] if times[one.pair] == 1 and set(one.pair) <= set(trials)]
    return draw.choice(old) if old else None


def _telling(
    trials: Sequence[int], judgements: Sequence[Judgement], last: Sequence[Judgement], draw: random.Random
) -> tuple[int, int]:
    """The pair whose answer is expected to tell the most: the greatest product of how uncertain the difference of its
    scores is and how much an answer says about that. The one just judged is left out, ties are drawn."""
    just = {one.pair for one in last}
    pairs = [pair for pair in combinations(sorted(trials), 2) if pair not in just] or list(just)
    model = fit(sorted(trials), judgements)
    left = np.array([model.place(one) for one, _ in pairs])
    right = np.array([model.place(other) for _, other in pairs])
    covariance = model.covariance
    variance = covariance[left, left] + covariance[right, right] - 2 * covariance[left, right]
    chances = outcomes(model.scores[left] - model.scores[right], model.tie)
    gain = variance * information(chances[:, 0], chances[:, 1])
    best = np.flatnonzero(gain >= gain.max() - 1e-9)
    return pairs[draw.choice(best.tolist())]
