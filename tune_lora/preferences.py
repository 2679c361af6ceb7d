"""What people preferred, as numbers: a Bradley-Terry model with ties (Davidson 1970) over pairs of trials. Pure.

Of trials with scores s the left one is preferred with a probability in proportion to exp(s_left), the right one to
exp(s_right), and neither to nu * exp((s_left + s_right) / 2). A weak normal prior keeps scores finite after one click
and after nothing but wins; the log posterior is concave, so its maximum is the only one. Intervals are those of the
normal distribution with the posterior's curvature there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from scipy import optimize

from tune_lora.rank_agreement import Agreement, Consistency, agreement, consistency
from tune_lora.records import StudyRecord, TrialRecord

Choice = Literal["left", "right", "tie"]
CHOICES: tuple[Choice, ...] = ("left", "right", "tie")

LEVEL = 0.90
"""Of the intervals."""
_SIGMAS = 1.6449  # of a normal distribution: half of the interval
PRIOR_SCORE, PRIOR_TIE = 2.0, 1.5
"""Standard deviations of the prior: of a score (at 2, one trial in six beats the middle 88 times of 100), and of
log nu (around 0, where equals are called equal a third of the time)."""
_DRAWS = 4_000


@dataclass(frozen=True)
class Judgement:
    """One answer of one rater. `left` and `right` are numbers of trials as they were shown; `key` tells it from
    others."""

    left: int
    right: int
    choice: Choice
    rater: str = ""
    key: str = ""

    @property
    def pair(self) -> tuple[int, int]:
        """The two trials, whichever side they were on."""
        return min(self.left, self.right), max(self.left, self.right)

    @property
    def preferred(self) -> int | None:
        """The trial that was preferred; None for a tie."""
        return None if self.choice == "tie" else self.left if self.choice == "left" else self.right


@dataclass(frozen=True)
class Model:
    """Scores (N,) of `trials`, mean 0, higher preferred; their covariance (N, N); `tie` is log nu."""

    trials: tuple[int, ...]
    scores: np.ndarray
    covariance: np.ndarray
    tie: float

    def place(self, trial: int) -> int:
        """The row of a trial."""
        return self.trials.index(trial)


@dataclass(frozen=True)
class Liking:
    """How much one trial is preferred.

    `score` is in logits around the mean of the rated trials, `low` and `high` its 90% interval. `chance` is the
    probability that no rated trial is preferred to it.
    """

    trial: int
    score: float
    low: float
    high: float
    chance: float
    wins: int
    losses: int
    ties: int

    @property
    def seen(self) -> int:
        """In how many pairs it was judged."""
        return self.wins + self.losses + self.ties


@dataclass(frozen=True)
class Preferences:
    """What the raters of a study said: the trials, most preferred first; how far the study's own score agrees; how far
    the raters agree with themselves and with each other."""

    likings: tuple[Liking, ...]
    judgements: int
    raters: tuple[str, ...]
    agreement: Agreement
    consistency: Consistency

    def liking(self, trial: int) -> Liking | None:
        """That of one trial; None where nobody judged it."""
        return next((one for one in self.likings if one.trial == trial), None)


def of(record: StudyRecord) -> Preferences | None:
    """What was preferred among the trials of a study; None where nobody rated any."""
    judged = judgements_in(record)
    if not judged:
        return None
    model = fit(sorted({trial for one in judged for trial in one.pair}), judged)
    known = {trial.number: trial for trial in record.trials}
    likings = _likings(model, judged)
    worth = [(one.score, goodness(record, known[one.trial])) for one in likings]
    return Preferences(
        likings=likings,
        judgements=len(judged),
        raters=tuple(sorted({one.rater for one in judged})),
        agreement=agreement([(liked, good) for liked, good in worth if good is not None]),
        consistency=consistency((one.rater, one.pair, one.preferred, one.choice) for one in judged),
    )


def judgements_in(record: StudyRecord) -> list[Judgement]:
    """The judgements that are stored in a study, of trials that it has."""
    known = {trial.number for trial in record.trials}
    found = (judgement(one) for one in record.ratings)
    return [one for one in found if one is not None and {one.left, one.right} <= known]


def judgement(entry: Mapping[str, Any]) -> Judgement | None:
    """A judgement as it was stored; None where it is none."""
    left, right, choice = entry.get("left"), entry.get("right"), entry.get("choice")
    if not isinstance(left, int) or not isinstance(right, int) or left == right or choice not in CHOICES:
        return None
    return Judgement(left, right, cast(Choice, choice), str(entry.get("rater", "")), str(entry.get("id", "")))


def goodness(record: StudyRecord, trial: TrialRecord) -> float | None:
    """A trial's worth by the study's own score, higher better; with several objectives by its place among all."""
    if record.has_several:
        places = [one.number for one in record.ranked()]
        return -float(places.index(trial.number)) if trial.number in places else None
    if trial.value is None:
        return None
    return -trial.value if record.direction == "minimize" else trial.value


def fit(trials: Sequence[int], judgements: Iterable[Judgement]) -> Model:
    """The most probable scores of `trials` (at least one) after the judgements; all 0 without any."""
    place = {trial: row for row, trial in enumerate(trials)}
    judged = [one for one in judgements if one.left in place and one.right in place]
    difference = np.zeros((len(judged), len(trials)))
    for row, one in enumerate(judged):
        difference[row, place[one.left]], difference[row, place[one.right]] = 1.0, -1.0
    said = np.array([[one.choice == choice for choice in CHOICES] for one in judged], float).reshape(-1, 3)
    precision = np.diag([PRIOR_SCORE**-2] * len(trials) + [PRIOR_TIE**-2])
    found = optimize.minimize(
        _loss,
        np.zeros(len(trials) + 1),
        args=(difference, said, precision),
        jac=_gradient,
        hess=_curvature,
        method="trust-exact",
        options={"gtol": 1e-8},
    )
    covariance = np.linalg.inv(_curvature(found.x, difference, said, precision))[:-1, :-1]
    centred = np.eye(len(trials)) - 1 / len(trials)
    return Model(tuple(trials), centred @ found.x[:-1], centred @ covariance @ centred, float(found.x[-1]))


def outcomes(difference: np.ndarray, tie: float) -> np.ndarray:
    """Probabilities (N, 3) of left, right and tie, of pairs whose scores differ by `difference` (N,)."""
    logits = np.stack([difference / 2, -difference / 2, np.full_like(difference, tie)], axis=1)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _loss(x: np.ndarray, difference: np.ndarray, said: np.ndarray, precision: np.ndarray) -> float:
    share = outcomes(difference @ x[:-1], float(x[-1]))
    # A share that is 0 in floating point belongs to a step that the minimizer must not take, not to an error.
    return float(x @ precision @ x / 2 - (said * np.log(np.maximum(share, 1e-300))).sum())


def _gradient(x: np.ndarray, difference: np.ndarray, said: np.ndarray, precision: np.ndarray) -> np.ndarray:
    wrong = outcomes(difference @ x[:-1], float(x[-1])) - said
    of_scores = difference.T @ (wrong[:, 0] - wrong[:, 1]) / 2
    return np.asarray(precision @ x + np.append(of_scores, wrong[:, 2].sum()))


def _curvature(x: np.ndarray, difference: np.ndarray, said: np.ndarray, precision: np.ndarray) -> np.ndarray:
    del said  # the curvature of a multinomial logit does not depend on what was answered
    left, right, tie = outcomes(difference @ x[:-1], float(x[-1])).T
    found = precision.copy()
    found[:-1, :-1] += difference.T @ (difference * information(left, right)[:, None])
    found[:-1, -1] += difference.T @ (-(left - right) * tie) / 2
    found[-1, :-1] = found[:-1, -1]
    found[-1, -1] += (tie * (1 - tie)).sum()
    return np.asarray(found)


def information(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Fisher information of an answer about the difference of two scores, by the probabilities of left and right."""
    return (left + right - (left - right) ** 2) / 4


def _likings(model: Model, judged: Sequence[Judgement]) -> tuple[Liking, ...]:
    deviation = np.sqrt(np.maximum(np.diag(model.covariance), 0))
    draws = np.random.default_rng(0).multivariate_normal(model.scores, model.covariance, _DRAWS, method="eigh")
    chance = np.bincount(draws.argmax(axis=1), minlength=len(model.trials)) / _DRAWS
    found = []
    for row, trial in enumerate(model.trials):
        mine = [one for one in judged if trial in one.pair]
        wins, ties = sum(one.preferred == trial for one in mine), sum(one.preferred is None for one in mine)
        score, half = float(model.scores[row]), float(_SIGMAS * deviation[row])
        counts = (wins, len(mine) - wins - ties, ties)
        found.append(Liking(trial, score, score - half, score + half, float(chance[row]), *counts))
    return tuple(sorted(found, key=lambda one: (-one.score, one.trial)))
