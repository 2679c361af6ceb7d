"""What a sampler looks at of a long history: a study's trials, taken in once each, and the few that stand for many.

A suggestion that reads all trials costs the more the longer a study runs. Up to `OTHERS` trials nothing is left out, so
studies of the usual size are what they would be without this file.
"""

from __future__ import annotations

import math
import weakref
from bisect import insort
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from optuna.distributions import BaseDistribution
from optuna.samplers._tpe.sampler import _split_trials
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

OTHERS = 1000
"""Trials that stand for all that are not among the good ones; what it costs and changes is in docs/LOG.md."""

_Place = tuple[int, float, float, int]


@dataclass(frozen=True)
class News:
    """What has changed in a study: trials that have `finished` since the last look and those `running` now, each by
    number; `anew` where it is another study, so that nothing known before holds.
    """

    finished: list[FrozenTrial]
    running: list[FrozenTrial]
    anew: bool


class Follower:
    """Looks at one study again and again; each finished trial is told once."""

    def __init__(self) -> None:
        self._study: weakref.ref[Study] | None = None
        self._open: list[int] = []
        self._seen = 0

    def look(self, study: Study) -> News:
        """What is new, in time that does not grow with the trials that have finished (but for a copy of the list)."""
        anew = self._study is None or self._study() is not study
        if anew:
            self._study, self._open, self._seen = weakref.ref(study), [], 0
        trials = study.get_trials(deepcopy=False)
        unsure = [trials[number] for number in (*self._open, *range(self._seen, len(trials)))]
        self._seen = len(trials)
        self._open = [trial.number for trial in unsure if not trial.state.is_finished()]
        return News(
            [trial for trial in unsure if trial.state.is_finished()],
            [trial for trial in unsure if trial.state == TrialState.RUNNING],
            anew,
        )


class Ranked:
    """Finished trials of a study in TPE's order, best first, kept as they finish: those of the given states.

    `revision` changes whenever they do; `running` are the trials that run.
    """

    def __init__(
        self, most: int = OTHERS, states: Container[TrialState] = (TrialState.COMPLETE, TrialState.PRUNED)
    ) -> None:
        self._follower, self._most, self._states, self.revision = Follower(), most, states, 0
        self.running: list[FrozenTrial] = []
        self._begin()

    def _begin(self) -> None:
        self._trials: dict[int, FrozenTrial] = {}
        self._numbers: list[int] = []
        self._places: list[_Place] = []
        self._split: tuple[int, list[FrozenTrial], list[FrozenTrial]] | None = None
        self._internal: dict[tuple[str, BaseDistribution], dict[int, float | None]] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def look(self, study: Study) -> None:
        """Takes in what is new."""
        news = self._follower.look(study)
        if news.anew:
            self._begin()
        told = [trial for trial in news.finished if trial.state in self._states]
        for trial in told:
            self._trials[trial.number] = trial
            insort(self._numbers, trial.number)
            if len(study.directions) == 1:
                insort(self._places, place(trial, study.direction))
        if told or news.anew:
            self._split = None
            self.revision += 1
        self.running = news.running

    def split(self, study: Study, n_good: int) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """The `n_good` best of all, and those that stand for the others; each by number."""
        known = self._split
        if known is None or known[0] != n_good:
            order = self._order(study, n_good)
            good, rest = order[:n_good], order[n_good:]
            others = standing_for(rest, self._newest(set(good)), self._most)
            known = (n_good, self._of(sorted(good)), self._of(others))
            self._split = known
        return known[1], known[2]

    def internal(self, trials: Iterable[FrozenTrial], name: str, distribution: BaseDistribution) -> list[float]:
        """Optuna's inner numbers for a parameter's values, of the trials that have it. Worked out once a trial."""
        known = self._internal.setdefault((name, distribution), {})
        found = []
        for trial in trials:
            if trial.number in known:
                value = known[trial.number]
            else:
                value = distribution.to_internal_repr(trial.params[name]) if name in trial.params else None
                if trial.state.is_finished():
                    known[trial.number] = value
            if value is not None:
                found.append(value)
        return found

    def _of(self, numbers: Iterable[int]) -> list[FrozenTrial]:
        return [self._trials[number] for number in numbers]

    def _newest(self, good: set[int]) -> list[int]:
        """The newest quarter of what stands for the others, oldest first."""
        newest = (number for number in reversed(self._numbers) if number not in good)
        return sorted(islice(newest, self._most // 4))

    def _order(self, study: Study, n_good: int) -> list[int]:
        """All numbers; with several objectives only the good ones come before the others."""
        if len(study.directions) == 1:
            return [number for *_, number in self._places]
        good, others = _split_trials(study, self._of(self._numbers), n_good)
        return [trial.number for trial in (*good, *others)]


def place(trial: FrozenTrial, direction: StudyDirection) -> _Place:
    """Where TPE ranks a finished trial of one objective, the least first: complete ones by value, then pruned ones by
    how far they came and what they reported there, then those that break a constraint by how far.
    """
    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
    if (excess := sum(value for value in trial.constraints.values() if value > 0)) > 0:
        return 2, excess, 0.0, trial.number
    if trial.state == TrialState.COMPLETE:
        assert trial.value is not None
        return 0, sign * trial.value, 0.0, trial.number
    if not trial.intermediate_values:
        return 1, 1.0, 0.0, trial.number
    step, value = max(trial.intermediate_values.items())
    return 1, -float(step), math.inf if math.isnan(value) else sign * value, trial.number


def standing_for(order: Sequence[int], newest: Iterable[int], most: int) -> list[int]:
    """At most `most` of the numbers in `order` (best first), ascending: all of them where they are few enough, else the
    best quarter, the newest quarter, and an even choice of the ranks below.

    The best say where good trials end, the newest what has just been tried, and the even choice keeps in mind what has
    been found to be bad. `newest` are a quarter of `most`.
    """
    if len(order) <= most:
        return sorted(order)
    quarter = most // 4
    n_even = most - 2 * quarter
    ranks = [quarter + index * (len(order) - quarter) // n_even for index in range(n_even)]
    return sorted({*order[:quarter], *newest, *(order[rank] for rank in ranks)})
