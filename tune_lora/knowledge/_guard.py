"""Whether carried results mislead: a pure function of what they predict and of what was measured here.

The carried results are a regression's data: the mean of extremely randomised trees, which leave out what does not
matter, and of a ridge regression on parameters and their squares, which sees a trend in a dozen points. Its
predictions for this study's own trials are compared with what those got, pair by pair: two trials are compared at the
largest budget that both were scored at, and one that failed by its own fault is worse than any that did not. The sum of
agreeing less disagreeing pairs is Kendall's statistic; how rarely it comes out as low by chance is found by permuting
the predictions.

The question is one-sided. Knowledge that says nothing correlates with nothing, and so does good knowledge once the
search stays where it pointed, so neither is let go: only results that are worse where better ones were promised are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.points import encode
from search_spaces.space import Space

LEAST_CARRIED = 5
"""Fewer results are soon outnumbered by the study's own, and predict nothing."""
LEAST_OWN, MOST_OWN = 10, 40
"""Trials of this study between which there is a verdict; beyond, they say more than anything carried."""
LEVEL = 0.1
"""Probability at which chance is no longer believed in, at each look (docs/knowledge.md has the rates that follow)."""
PERMUTATIONS = 999

Predict = Callable[[Mapping[str, Any]], float]
"""Goodness that carried results promise a configuration: lower is better."""


@dataclass(frozen=True)
class Own:
    """A trial of this study. `scores` by budget, lower is better; `final` of one that completed; `failed`: by its own
    fault."""

    params: Mapping[str, Any]
    scores: Mapping[int, float] = field(default_factory=dict)
    final: float | None = None
    failed: bool = False

    @property
    def says_something(self) -> bool:
        """Whether it can be compared with another."""
        return self.failed or self.final is not None or bool(self.scores)


@dataclass(frozen=True)
class Verdict:
    """How promises and results agree: `agreement` is Kendall's, -1 to 1; `chance` the probability of one as low."""

    trials: int
    agreement: float
    chance: float

    @property
    def misleads(self) -> bool:
        """Whether better was promised where worse was found, beyond chance."""
        return self.chance <= LEVEL and self.agreement < 0


def judge(predict: Predict, own: Sequence[Own]) -> Verdict | None:
    """Compares promises with results; None where too few trials can be compared, or enough."""
    told = [trial for trial in own if trial.says_something]
    if not LEAST_OWN <= len(told) <= MOST_OWN:
        return None
    promised = np.array([predict(trial.params) for trial in told])
    order, found = np.sign(promised[:, None] - promised[None, :]), _pairs(told)
    observed = float((order * found).sum())
    comparable = float((order != 0).astype(float).ravel() @ np.abs(found).ravel())
    random = np.random.default_rng(len(told))
    lower = 0
    for _ in range(PERMUTATIONS):
        shuffled = random.permutation(len(told))
        lower += float((order[np.ix_(shuffled, shuffled)] * found).sum()) <= observed
    return Verdict(len(told), observed / comparable if comparable else 0.0, (lower + 1) / (PERMUTATIONS + 1))


def predictor(space: Space, params: Sequence[Mapping[str, Any]], shares: Sequence[float]) -> Predict | None:
    """What carried results promise; None where they are too few, or all alike."""
    if len(params) < LEAST_CARRIED or min(shares) == max(shares):
        return None
    from sklearn.ensemble import ExtraTreesRegressor  # takes a second to import
    from sklearn.linear_model import RidgeCV

    known, targets = np.array([encode(space, one) for one in params]), np.asarray(shares, dtype=float)
    middle = known.mean(axis=0)
    # One core: trials are training on the others.
    trees = ExtraTreesRegressor(n_estimators=60, min_samples_leaf=2, random_state=0, n_jobs=1).fit(known, targets)
    ridge = RidgeCV(alphas=np.logspace(-2, 2, 9)).fit(_with_squares(known - middle), targets)
    answers: dict[tuple[float, ...], float] = {}

    def predict(one: Mapping[str, Any]) -> float:
        asked = tuple(encode(space, one))
        if asked not in answers:
            at = np.array([asked])
            both = float(trees.predict(at)[0]) + float(ridge.predict(_with_squares(at - middle))[0])
            answers[asked] = round(both / 2, 12)
        return answers[asked]

    return predict


def _with_squares(features: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hstack([features, features**2])


def _pairs(trials: Sequence[Own]) -> NDArray[np.float64]:
    """1 where the first of a pair was worse, -1 where it was better, 0 where they cannot be told apart."""
    found = np.zeros((len(trials), len(trials)))
    for first in range(len(trials)):
        for second in range(first):
            found[first, second] = _compare(trials[first], trials[second])
            found[second, first] = -found[first, second]
    return found


def _compare(first: Own, second: Own) -> float:
    if first.failed or second.failed:
        return float(first.failed) - float(second.failed)
    if first.final is not None and second.final is not None:
        return float(np.sign(first.final - second.final))
    shared = first.scores.keys() & second.scores.keys()
    return float(np.sign(first.scores[max(shared)] - second.scores[max(shared)])) if shared else 0.0
