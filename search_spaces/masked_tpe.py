"""Optuna's univariate TPE restricted to the values that rules leave open."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.study import Study
from optuna.trial import FrozenTrial

from search_spaces.regions import Region

_BATCHES = 32
_QUANTILES = 512


class MaskedTPE(TPESampler):
    """TPE whose candidates all lie in a region.

    TPE draws candidates from its density of good trials and takes the one that is most typical of good trials and least
    of the others. Here the density is cut to the region and renormalised before candidates are drawn; the estimate
    itself, and so the meaning of the study's trials, is that of the whole domain. Drawing whole suggestions again until
    one fits is not the same: where TPE is sure of a forbidden value it may never come.
    """

    _region: Region | None = None

    def sample_within(
        self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution, region: Region
    ) -> Any:
        """A value of one parameter; in the region unless TPE still starts up and draws uniformly."""
        self._region = region
        try:
            return self.sample_independent(study, trial, name, distribution)
        finally:
            self._region = None

    def _build_parzen_estimator(
        self, study: Study, search_space: dict[str, BaseDistribution], trials: list[FrozenTrial], handle_below: bool
    ) -> _ParzenEstimator:
        whole = super()._build_parzen_estimator(study, search_space, trials, handle_below)
        if self._region is None or not handle_below:
            return whole
        (name, distribution), *_ = search_space.items()
        return _Cut(whole, name, distribution, self._region)


class _Cut(_ParzenEstimator):
    """A density of one parameter, cut to a region when it is sampled."""

    def __init__(self, whole: _ParzenEstimator, name: str, distribution: BaseDistribution, region: Region) -> None:
        vars(self).update(vars(whole))
        self._name, self._region = name, region
        self._is_categorical = isinstance(distribution, CategoricalDistribution)
        values = region.choices if region.choices is not None else _grid(region)
        self._values = np.array([distribution.to_internal_repr(value) for value in values], dtype=float)

    def sample(self, rng: np.random.RandomState, size: int) -> dict[str, NDArray[Any]]:
        if self._region.choices is None:
            drawn = self._drawn_until_they_fit(rng, size)
            if drawn.size:
                return {self._name: rng.choice(drawn, size) if drawn.size < size else drawn[:size]}
        return {self._name: rng.choice(self._values, size, p=self._likely())}

    def _drawn_until_they_fit(self, rng: np.random.RandomState, size: int) -> NDArray[np.float64]:
        found = np.empty(0)
        for _ in range(_BATCHES):
            drawn = super().sample(rng, size)[self._name]
            found = np.concatenate([found, drawn[self._region.holds(drawn)]])
            if found.size >= size:
                break
        return found

    def _likely(self) -> NDArray[np.float64]:
        """Probability of each of the region's values under the density."""
        logs = self.log_pdf({self._name: self._values})
        weights = np.exp(logs - logs.max())
        return np.asarray(weights / weights.sum())


def _grid(region: Region) -> list[float]:
    """Evenly spread values of a region of numbers: what candidates are drawn from where the density hardly reaches."""
    return [region.at((index + 0.5) / _QUANTILES) for index in range(_QUANTILES)]
