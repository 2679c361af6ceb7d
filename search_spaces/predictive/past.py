"""What a study has taught so far: each trial is read and encoded once, and a bounded number of them is looked at."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from search_spaces.points import encode
from search_spaces.predictive.evidence import Horizon, Observed, longest, observe
from search_spaces.space import Space
from search_spaces.thinning import OTHERS, Follower, place, standing_for

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """One trial and where it lies: `vector` of shape (d,), as `points.encode` has it."""

    number: int
    observed: Observed
    vector: Array


@dataclass(frozen=True)
class Evidence:
    """What a suggestion rests on.

    `begun` are trials with a curve or still running, those that stand for all, `failed` the newest failures, `silent`
    the newest that ended before they had a score; each by number. `tried` marks every configuration of all trials,
    `longest` is the longest budget of all. `n_observed` and `n_scored` count the trials that tell something, and those
    with a curve.
    """

    begun: Sequence[Seen]
    failed: Sequence[Seen]
    silent: Sequence[Seen]
    tried: frozenset[bytes] | set[bytes]
    longest: int
    n_observed: int
    n_scored: int

    @property
    def params(self) -> list[Mapping[str, Any]]:
        """The parameters of all these trials."""
        return [seen.observed.params for seen in (*self.begun, *self.failed, *self.silent)]


class Past:
    """The trials of one study at a time, as they finish.

    With more than `most` finished trials that have a curve, `evidence` holds so many of them (`thinning.standing_for`),
    ranked as TPE ranks trials; those that run are all there.
    """

    def __init__(self, space: Space, horizon: Horizon | None = None, most: int = OTHERS) -> None:
        self._space, self._horizon, self._most = space, horizon, most
        self._needed = frozenset(name for name, parameter in space.parameters.items() if parameter.when is None)
        self._follower = Follower()
        self._begin()

    def _begin(self) -> None:
        self._begun: dict[int, Seen] = {}
        self._numbers: list[int] = []
        self._places: list[tuple[int, float, float, int]] = []
        self._failed: list[Seen] = []
        self._silent: list[Seen] = []
        self._tried: set[bytes] = set()
        self._longest = 1
        self._n_observed = self._n_scored = 0
        self._encoded: dict[int, tuple[Mapping[str, Any], Array]] = {}
        self._kept: list[Seen] | None = None

    def evidence(self, study: Study, without: int) -> Evidence:
        """What is known now, without the trial of that number: the one that is being drawn."""
        news = self._follower.look(study)
        if news.anew:
            self._begin()
        for trial in news.finished:
            self._take(trial, study.direction)
        running = self._seen((trial for trial in news.running if trial.number != without), study.direction)
        return Evidence(
            sorted([*self._standing(), *running], key=_number),
            tuple(self._failed),
            tuple(self._silent),
            self._tried.union(mark(seen.vector) for seen in running) if running else self._tried,
            max(self._longest, longest([seen.observed for seen in running])),
            self._n_observed + len(running),
            self._n_scored + sum(bool(seen.observed.curve) for seen in running),
        )

    def _take(self, trial: FrozenTrial, direction: StudyDirection) -> None:
        for seen in self._seen([trial], direction):
            self._encoded.pop(trial.number, None)
            self._n_observed += 1
            if seen.observed.curve:
                self._score(seen, place(trial, direction))
            else:
                newest = self._failed if seen.observed.failed else self._silent
                insort(newest, seen, key=_number)
                del newest[: -self._most]
            if seen.observed.curve or seen.observed.failed:
                self._tried.add(mark(seen.vector))

    def _score(self, seen: Seen, ranked: tuple[int, float, float, int]) -> None:
        self._n_scored += 1
        self._begun[seen.number] = seen
        insort(self._numbers, seen.number)
        insort(self._places, ranked)
        self._longest = max(self._longest, longest([seen.observed]))
        self._kept = None

    def _seen(self, trials: Iterable[FrozenTrial], direction: StudyDirection) -> list[Seen]:
        return [
            Seen(trial.number, observed, self._vector(trial.number, observed.params))
            for trial in trials
            for observed in observe([trial], direction, self._horizon, self._needed)
        ]

    def _vector(self, number: int, params: Mapping[str, Any]) -> Array:
        """Where a trial lies; what runs is asked about again and again."""
        known = self._encoded.get(number)
        if known is None or known[0] != params:
            known = self._encoded[number] = dict(params), encode(self._space, params)
        return known[1]

    def _standing(self) -> list[Seen]:
        if self._kept is None:
            newest = islice(reversed(self._numbers), self._most // 4)
            chosen = standing_for([number for *_, number in self._places], newest, self._most)
            self._kept = [self._begun[number] for number in chosen]
        return self._kept


def _number(seen: Seen) -> int:
    return seen.number


def mark(vector: Array) -> bytes:
    """What two encoded configurations share only when they are the same."""
    return (np.round(vector, 6) + 0.0).tobytes()  # the sum turns -0 into 0
