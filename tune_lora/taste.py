"""What raters like, told from what the evaluation measures: learnt from one study, used by the next (docs/rating.md).

A new trial has no clicks, so a term of its score can only be a prediction of them: a ridge regression of the preference
scores on the trials' metrics. How good it is, is measured on each trial in turn, told of the others only; how strong
the pull to zero is, is chosen among those others. Shuffled scores, treated the same way, say how far luck alone comes:
what is no better is no term.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from trainables.preference import FEATURES
from tune_lora import preferences, wording
from tune_lora.errors import InputError
from tune_lora.preferences import Preferences
from tune_lora.store import StudyRecord, TrialRecord

ENOUGH = 8
"""Rated trials below which nothing is learnt: the order of fewer is right by chance too often."""
CHANCE = 0.05
"""The greatest probability of predicting so well by chance with which a term is written."""
_SHUFFLES = 1_999
_PULLS = np.geomspace(0.1, 1000, 13)
"""Of ridge: how much a squared weight costs, in squared errors."""
_CONSTANT = 1e-9


@dataclass(frozen=True)
class Taste:
    """A preference learnt from metrics.

    `terms` has ``weight``, ``mean``, ``scale``, ``low`` and ``high`` by metric. `rank` is Spearman's coefficient of the
    scores with what was predicted of each trial from the others, `chance` how probable it is to come so far by luck.
    """

    terms: Mapping[str, Mapping[str, float]]
    rank: float
    chance: float
    n: int
    found: Preferences
    study: str

    @property
    def provenance(self) -> str:
        """Where it is from, and how good it is, in one sentence."""
        return (
            f"study {self.study}: {self.found.judgements} pairs of {self.n} trials, judged by "
            f"{', '.join(self.found.raters)}; predicted from the others, trials are ordered as they are liked with a "
            f"rank correlation of {self.rank:.2f} (by chance with probability {self.chance:.3f})"
        )


def learn(record: StudyRecord) -> Taste:
    """What the raters of a study like, by its metrics.

    Raises:
        InputError: it was not rated, too few trials were, their metrics are missing, or what is liked does not show in
            them better than by chance.
    """
    found = preferences.of(record)
    if found is None:
        raise InputError(f"study {record.name}: nobody has rated it; `tune-lora rate` asks for it")
    trials = {trial.number: trial for trial in record.trials}
    rated = [(one.score, trials[one.trial]) for one in found.likings if _measured(trials[one.trial])]
    if len(rated) < ENOUGH:
        raise InputError(
            f"study {record.name}: {len(rated)} rated trials have metrics of images; must be {ENOUGH} or more "
            f"(`tune-lora rate --top {2 * ENOUGH}`)"
        )
    names, table = _table([trial for _, trial in rated])
    scores = np.array([score for score, _ in rated])
    rank, chance = foresight(table, scores)
    if chance > CHANCE:
        raise InputError(
            f"study {record.name}: what is liked does not show in the metrics: predicted from the others, its "
            f"{len(rated)} trials are ordered as they are liked with a rank correlation of {rank:.2f}, by chance with "
            f"probability {chance:.2f}, which must be {CHANCE:g} or less; more pairs, or more trials (--top), may help"
        )
    return Taste(_terms(names, table, scores), rank, chance, len(rated), found, record.name)


def section(taste: Taste) -> dict[str, Any]:
    """The section ``objective.preference`` of a study file, as plain data."""
    terms = {name: {key: float(f"{value:.5g}") for key, value in term.items()} for name, term in taste.terms.items()}
    return {"metrics": terms, "learnt_from": taste.provenance}


def told(taste: Taste) -> list[str]:
    """What was learnt, one line each."""
    order = sorted(taste.terms.items(), key=lambda item: -abs(item[1]["weight"]))
    parts = [f"{'more' if term['weight'] > 0 else 'less'} {name} ({term['weight']:+.2f})" for name, term in order]
    return [
        f"liked, in logits a standard deviation: {', '.join(parts)}",
        f"rank correlation of what was predicted of each trial from the others with what is liked: {taste.rank:.2f} "
        f"({taste.n} trials, by chance with probability {wording.number(taste.chance, 2)})",
    ]


def foresight(table: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """How well the scores (N,) of trials are foretold from metrics (N, K) by those of the others.

    Returns Spearman's coefficient, and the share of shuffled scores that come as far, the scores themselves counted.
    """
    draw = np.random.default_rng(0)
    shuffled = np.stack([scores, *(draw.permutation(scores) for _ in range(_SHUFFLES))], axis=1)
    ranks = _ranks(foretold(table, shuffled)), _ranks(shuffled)
    size = np.sqrt((ranks[0] ** 2).sum(axis=0) * (ranks[1] ** 2).sum(axis=0))
    reached = (ranks[0] * ranks[1]).sum(axis=0) / np.maximum(size, _CONSTANT)
    return float(reached[0]), float((reached >= reached[0] - _CONSTANT).mean())


def foretold(table: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Of each trial what is predicted from the others: (N, P) for P columns of scores (N, P). How strong the pull to
    zero is, is chosen for each column within the others by leaving one of them out at a time."""
    found = np.empty_like(scores)
    for row in range(len(table)):
        others = np.delete(np.arange(len(table)), row)
        fitted = _Ridge(table[others])
        best = fitted.errors(scores[others]).argmin(axis=0)
        found[row] = (fitted.reach(table[row]) @ scores[others])[best, np.arange(scores.shape[1])]
    return found


class _Ridge:
    """Ridge regressions on a table (N, K), one for each of `_PULLS` (L)."""

    def __init__(self, table: np.ndarray) -> None:
        self.mean, self.scale = table.mean(axis=0), np.maximum(table.std(axis=0), _CONSTANT)
        self._left, self._sizes, self._right = np.linalg.svd((table - self.mean) / self.scale, full_matrices=False)
        self._shrunk = self._sizes**2 / (self._sizes**2 + _PULLS[:, None])
        self._n = len(table)

    def errors(self, scores: np.ndarray) -> np.ndarray:
        """Mean squared errors (L, P) at rows left out one by one, of scores (N, P)."""
        hats = 1 / self._n + np.einsum("ik,lk,jk->lij", self._left, self._shrunk, self._left)
        leverage = np.minimum(np.einsum("lii->li", hats), 1 - _CONSTANT)
        left_out = (scores - hats @ scores) / (1 - leverage)[:, :, None]
        return np.asarray((left_out**2).mean(axis=1))

    def reach(self, row: np.ndarray) -> np.ndarray:
        """Weights (L, N) of the scores in what is predicted of a row (K,)."""
        moved = (row - self.mean) / self.scale @ self._right.T
        slopes = np.divide(self._shrunk, self._sizes, out=np.zeros_like(self._shrunk), where=self._sizes > _CONSTANT)
        return np.asarray(1 / self._n + (slopes * moved) @ self._left.T)

    def weights(self, scores: np.ndarray) -> np.ndarray:
        """The weight (K,) of each metric, a standard deviation, with the pull whose errors are smallest."""
        best = int(self.errors(scores[:, None])[:, 0].argmin())
        kept = self._sizes > _CONSTANT
        slopes = (self._shrunk[best] / np.where(kept, self._sizes, 1)) * kept
        return np.asarray((slopes * (self._left.T @ scores)) @ self._right)


def _terms(names: list[str], table: np.ndarray, scores: np.ndarray) -> dict[str, dict[str, float]]:
    fitted = _Ridge(table)
    columns = zip(
        names, fitted.weights(scores), fitted.mean, fitted.scale, table.min(axis=0), table.max(axis=0), strict=True
    )
    keys = ("weight", "mean", "scale", "low", "high")
    return {name: dict(zip(keys, map(float, values), strict=True)) for name, *values in columns}


def _measured(trial: TrialRecord) -> bool:
    return "clip_consistency" in trial.metrics and "failures" in trial.metrics


def _table(trials: list[TrialRecord]) -> tuple[list[str], np.ndarray]:
    """The metrics that all of the trials have and that differ between them, and their values (N, K)."""
    everywhere = [name for name in FEATURES if all(name in trial.metrics for trial in trials)]
    table = np.array([[trial.metrics[name] for name in everywhere] for trial in trials])
    differ = table.std(axis=0) > _CONSTANT
    if not differ.any():
        raise InputError("the rated trials measure the same in every metric; there is nothing to learn from")
    return [name for name, wanted in zip(everywhere, differ, strict=True) if wanted], table[:, differ]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks in each column, their mean taken off."""
    ranks = stats.rankdata(values, axis=0)
    return np.asarray(ranks - ranks.mean(axis=0))
