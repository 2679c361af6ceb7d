"""Optuna's univariate TPE restricted to the values that rules leave open."""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.sampler import default_gamma, default_gamma_multiobjective
from optuna.study import Study
from optuna.trial import FrozenTrial

from search_spaces.regions import Region
from search_spaces.thinning import Ranked

_BATCHES = 32
_QUANTILES = 512


class MaskedTPE(TPESampler):
    """TPE whose candidates all lie in a region.

    TPE draws candidates from its density of good trials and takes the one that is most typical of good trials and least
    of the others. Here the density is cut to the region and renormalised before candidates are drawn; the estimate
    itself, and so the meaning of the study's trials, is that of the whole domain. Drawing whole suggestions again until
    one fits is not the same: where TPE is sure of a forbidden value it may never come.

    Of long histories it looks at the good trials, the running ones and those that stand for the others (`thinning`);
    with at most `thinning.OTHERS` others it draws what Optuna's own draws. `past` may be shared by samplers of one
    study, so that what is known of its trials is worked out once.
    """

    def __init__(self, *, past: Ranked | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self._past = Ranked() if past is None else past
        self._region: Region | None = None
        self._known: tuple[Hashable, _ParzenEstimator, _ParzenEstimator] | None = None

    def sample_within(
        self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution, region: Region
    ) -> Any:
        """A value of one parameter; in the region unless TPE still starts up and draws uniformly."""
        self._region = region
        try:
            return self.sample_independent(study, trial, name, distribution)
        finally:
            self._region = None

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value of one parameter, without a region."""
        self._past.look(study)
        if len(self._past) < self._n_startup_trials:
            return self._random_sampler.sample_independent(study, trial, param_name, param_distribution)
        return self._sample(study, trial, {param_name: param_distribution})[param_name]

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        good, others = self._densities(study, trial, search_space)
        if self._region is not None:
            (name, distribution), *_ = search_space.items()
            good = _Cut(good, name, distribution, self._region)
        drawn = good.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(drawn, self._compute_acquisition_func(drawn, good, others))
        return {name: distribution.to_external_repr(best[name]) for name, distribution in search_space.items()}

    def _densities(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> tuple[_ParzenEstimator, _ParzenEstimator]:
        """Those of good trials and of the others. The last ones are kept: a value may have to be drawn again."""
        self._past.look(study)
        running = [one for one in self._past.running if self._constant_liar and one.number != trial.number]
        had = tuple((one.number, tuple(one.params)) for one in running)
        question = (self._past.revision, trial.number, tuple(search_space.items()), had)
        known = self._known
        if known is None or known[0] != question:
            good, standing = self._past.split(study, self._n_good(study))
            others = list(standing)
            for one in running:  # a few, and the others are in order
                insort(others, one, key=lambda other: other.number)
            build = self._build_parzen_estimator
            known = self._known = (
                question,
                build(study, search_space, good, True),
                build(study, search_space, others, False),
            )
        return known[1], known[2]

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: dict[str, BaseDistribution], study: Study
    ) -> dict[str, NDArray[Any]]:
        if len(search_space) > 1:
            return super()._get_internal_repr(trials, search_space, study)
        ((name, distribution),) = search_space.items()
        return {name: np.asarray(self._past.internal(trials, name, distribution))}

    def _n_good(self, study: Study) -> int:
        rule = default_gamma if len(study.directions) == 1 else default_gamma_multiobjective
        return int((self._gamma or rule)(len(self._past)))


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
