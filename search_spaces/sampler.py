"""An Optuna sampler that keeps a space's rules, around any other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search_spaces.domains import Number
from search_spaces.grid import GridOfSpace
from search_spaces.masked_tpe import MaskedTPE
from search_spaces.points import settled
from search_spaces.regions import Region
from search_spaces.space import Space
from search_spaces.strata import strata_of_trial

REDRAWS = 7
"""How often the sampler is asked again for a value before it is restricted to the region; measured to be a little
better than restricting it at once (docs/LOG.md)."""

Repair = Literal["nearest", "rescaled"]


class FeasibleSampler(BaseSampler):
    """Wraps a sampler so that a trial's values, drawn one after another, never run into a rule.

    Each value lies in the parameter's `Region`: those values with which some completion of the trial breaks no rule.
    The sampler is asked again a few times; then TPE draws from its density cut to the region, and the others, which
    draw single values uniformly anyway, leave it to a uniform draw from the region. Of values that a sampler draws
    together (cmaes, gp, nsgaii, qmc), a number that leads nowhere goes to the nearest that does (or, with ``repair``
    ``rescaled``, keeps its quantile), and a choice is drawn anew; the sampler is told what was really tried.
    Distributions stay the full ones, so the study reads as if it had no rules. `rejected` counts values that were
    refused, by the rule that stood in the way.

    Parameters in `Space.stratify` take their values from Latin-hypercube strata in the first `n_startup_trials` and in
    some of the later ones (`strata_of_trial`).

    `make` builds the wrapped sampler from a seed. With `reseed` it is built anew for each trial from (seed, trial
    number), so that a study that is continued draws what it would have drawn in one go.
    """

    def __init__(
        self,
        space: Space,
        make: Callable[[int], BaseSampler],
        *,
        seed: int = 0,
        reseed: bool = True,
        n_startup_trials: int = 10,
        repair: Repair = "nearest",
    ) -> None:
        self.space, self.rejected = space, Counter[str]()
        self._make, self._seed, self._reseed = make, seed, reseed
        self._n_startup_trials, self._repair = n_startup_trials, repair
        self._wrapped = make(seed)
        self._random = np.random.default_rng(seed)
        self._together: dict[str, Any] = {}
        self._strata: dict[str, float] = {}

    def __str__(self) -> str:
        return str(self._wrapped)

    def exhausted(self, study: Study) -> bool:
        """Whether there is nothing left to try: only ever of a grid."""
        return isinstance(self._wrapped, GridOfSpace) and self._wrapped.exhausted(study)

    def reseed_rng(self) -> None:
        """Gives the wrapped sampler another seed; Optuna asks for it when it copies samplers between threads."""
        self._wrapped.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seeds the trial."""
        seeds = np.random.SeedSequence([self._seed, trial.number]).generate_state(2)
        self._random = np.random.default_rng(seeds[0])
        if self._reseed:
            self._wrapped = self._make(int(seeds[1]))
        self._together = {}
        stratified = () if isinstance(self._wrapped, GridOfSpace) else self.space.stratify
        self._strata = strata_of_trial(stratified, trial.number, self._n_startup_trials, self._seed)
        self._wrapped.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Passed on."""
        self._wrapped.after_trial(study, trial, state, values)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Passed on: which values the wrapped sampler draws together."""
        return self._wrapped.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values drawn together, repaired one after another given the ones before."""
        drawn = self._wrapped.sample_relative(study, trial, search_space)
        self._together = {}
        for name in (name for name in self.space.order if name in drawn):
            value = self.space.parameters[name].domain.snap(drawn[name])
            self._together[name] = self._kept(self._together, name, value)
        return self._together

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """One value, given those that the trial has."""
        given = {**self._together, **trial.params}
        region = self.space.lookahead.region(given, param_name)
        if param_name in self._strata:
            return settled(self.space, given, param_name, lambda: region.at(self._strata[param_name]))
        value = self._snapped(
            param_name, self._wrapped.sample_independent(study, trial, param_name, param_distribution)
        )
        if self._is_open(given, param_name, value, region):
            return value

        def again() -> Any:
            return self._within(study, trial, param_name, param_distribution, region)

        return settled(self.space, given, param_name, again)

    def _kept(self, given: Mapping[str, Any], name: str, value: Any) -> Any:
        """A value that was drawn together with others, or what takes its place."""
        region = self.space.lookahead.region(given, name)
        domain = self.space.parameters[name].domain
        if name in self._strata:
            return settled(self.space, given, name, lambda: region.at(self._strata[name]))
        if self._is_open(given, name, value, region):
            return value
        if isinstance(domain, Number):
            place = region.at(domain.position(value)) if self._repair == "rescaled" else region.nearest(value)
            return settled(self.space, given, name, lambda: place)
        return region.uniform(self._random)

    def _is_open(self, given: Mapping[str, Any], name: str, value: Any, region: Region) -> bool:
        lookahead = self.space.lookahead
        if value in region and lookahead.is_exact(name):
            return True
        rule = lookahead.obstacle({**given, name: value})
        if rule is not None:
            self.rejected[rule] += 1
        return rule is None

    def _within(
        self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution, region: Region
    ) -> Any:
        for _ in range(REDRAWS):
            value = self._snapped(name, self._wrapped.sample_independent(study, trial, name, distribution))
            if value in region:
                return value
        if isinstance(self._wrapped, MaskedTPE):
            value = self._snapped(name, self._wrapped.sample_within(study, trial, name, distribution, region))
            if value in region:
                return value
        return region.uniform(self._random)

    def _snapped(self, name: str, value: Any) -> Any:
        return self.space.parameters[name].domain.snap(value)
