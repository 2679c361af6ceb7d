"""Optuna's other samplers that read the whole history, so that a suggestion does not cost more the longer it is."""

from __future__ import annotations

import weakref
from collections.abc import Container
from typing import Any, cast

from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler
from optuna.samplers._tpe.sampler import default_gamma_multiobjective
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search_spaces.thinning import Ranked

OBSERVATIONS = 500
"""Complete trials that Optuna's Gaussian process is given; it costs their number cubed (docs/LOG.md)."""


class BoundedGP(GPSampler):
    """Optuna's GP on at most `most` complete trials that stand for all; running ones are all there.

    With several objectives the best tenth, by fronts, comes on top, or half of `most` where that is less.
    """

    def __init__(self, *, most: int = OBSERVATIONS, **settings: Any) -> None:
        super().__init__(**settings)
        self._most, self._past = most, Ranked(most, (TrialState.COMPLETE,))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values drawn together."""
        self._past.look(study)
        if len(self._past) <= self._most:
            return super().sample_relative(study, trial, search_space)
        few = min(default_gamma_multiobjective(len(self._past)), self._most // 2) if len(study.directions) > 1 else 0
        good, others = self._past.split(study, few)
        thin = _Thin(study, [*good, *others, *self._past.running])
        return super().sample_relative(cast("Study", thin), trial, search_space)


class _Thin:
    """A study that shows some of its trials only."""

    def __init__(self, study: Study, trials: list[FrozenTrial]) -> None:
        self._whole, self._shown = study, sorted(trials, key=lambda trial: trial.number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def _get_trials(
        self,
        deepcopy: bool = True,  # noqa: ARG002  # Optuna's signature
        states: Container[TrialState] | None = None,
        use_cache: bool = False,  # noqa: ARG002
    ) -> list[FrozenTrial]:
        return [trial for trial in self._shown if states is None or trial.state in states]


class SharedSpace(IntersectionSearchSpace):
    """The parameters that all trials have, found once for samplers that are built anew for each trial.

    With another study it begins anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self._study: weakref.ref[Study] | None = None

    def calculate(self, study: Study, use_cache: bool = False) -> dict[str, BaseDistribution]:
        """The distributions by name; only trials that are new are looked at."""
        if self._study is None or self._study() is not study:
            super().__init__()
            self._study = weakref.ref(study)
        return super().calculate(study, use_cache)
