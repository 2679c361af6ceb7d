"""Suggestions that break no rule, from any Optuna sampler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search_spaces.lookahead import Lookahead
from search_spaces.space import Space
from tune_lora.errors import InputError, nearest

REDRAWS = 8
"""How often a value is drawn anew before it is taken from those that lead somewhere."""

SAMPLERS: Mapping[str, str] = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "cmaes": "CmaEsSampler",
    "gp": "GPSampler",
    "nsgaii": "NSGAIISampler",
    "qmc": "QMCSampler",
}
"""Names of samplers, and Optuna's class names, which are understood as well."""

_STATELESS = ("tpe", "random")
_NEEDS = {"cmaes": "cmaes", "gp": "torch"}


def sampler_name(name: str) -> str:
    """The short name of a sampler that was named in either way.

    Raises:
        InputError: there is none of that name.
    """
    known = {**{short: short for short in SAMPLERS}, **{long: short for short, long in SAMPLERS.items()}}
    if name not in known:
        raise InputError(f"sampler: got {name!r}; {nearest(name, known)}")
    return known[name]


def feasible_sampler(space: Space, name: str = "tpe", *, seed: int = 0, n_startup_trials: int = 10) -> FeasibleSampler:
    """A named sampler that keeps a space's rules.

    Raises:
        InputError: no such sampler, or a package that it needs is not installed.
    """
    short = sampler_name(name)
    # Optuna imports it when the first value is drawn, which is too late to say so.
    if (package := _NEEDS.get(short)) and find_spec(package) is None:
        raise InputError(
            f"sampler: {short} needs the package {package}, which is not installed (pip install {package})"
        )
    return FeasibleSampler(
        space, lambda seed: _build(short, seed, n_startup_trials), seed=seed, reseed=short in _STATELESS
    )


def _build(name: str, seed: int, n_startup_trials: int) -> BaseSampler:
    if name == "tpe":
        # Univariate: every value is drawn given those before it, which is where rules are kept.
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=n_startup_trials, multivariate=False)
    settings = {"n_startup_trials": n_startup_trials} if name in ("cmaes", "gp") else {}
    sampler: BaseSampler = getattr(optuna.samplers, SAMPLERS[name])(seed=seed, **settings)
    return sampler


class FeasibleSampler(BaseSampler):
    """Wraps a sampler so that a trial's values, drawn one after another, never run into a rule.

    A value is redrawn from the wrapped sampler until some completion of the trial breaks no rule; after `REDRAWS` of
    them it is drawn uniformly from the values that have one. Distributions stay the full ones, so the study reads as if
    it had no rules. Of values that a sampler draws together (relative sampling: cmaes, gp, nsgaii), those that lead
    nowhere are redrawn one by one; such a sampler is told what was really tried. `rejected` counts refused draws by the
    rule that stood in the way.

    `make` builds the wrapped sampler from a seed. With `reseed` it is built anew for each trial from (seed, trial
    number), so that a study that is continued draws what it would have drawn in one go.
    """

    def __init__(self, space: Space, make: Callable[[int], BaseSampler], *, seed: int = 0, reseed: bool = True) -> None:
        self.space, self.rejected = space, Counter[str]()
        self._lookahead = Lookahead(space)
        self._make, self._seed, self._reseed = make, seed, reseed
        self._wrapped = make(seed)
        self._random = np.random.default_rng(seed)
        self._together: dict[str, Any] = {}

    def __str__(self) -> str:
        return str(self._wrapped)

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
        """Values drawn together; those that lead nowhere given the ones before them are left to
        `sample_independent`.
        """
        drawn = self._wrapped.sample_relative(study, trial, search_space)
        kept: dict[str, Any] = {}
        for name in (name for name in self.space.order if name in drawn):
            value = self.space.parameters[name].domain.snap(drawn[name])
            if self._leads_somewhere(kept, name, value):
                kept[name] = value
        self._together = kept
        return kept

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """One value, given those that the trial has."""
        given = {**self._together, **trial.params}
        domain = self.space.parameters[param_name].domain
        for _ in range(REDRAWS):
            drawn = self._wrapped.sample_independent(study, trial, param_name, param_distribution)
            value = domain.snap(drawn)
            if self._leads_somewhere(given, param_name, value):
                return value
        return self._uniform(given, param_name)

    def _leads_somewhere(self, given: Mapping[str, Any], name: str, value: Any) -> bool:
        if name not in self._lookahead.points:
            return True
        rule = self._lookahead.obstacle({**given, name: value})
        if rule is not None:
            self.rejected[rule] += 1
        return rule is None

    def _uniform(self, given: Mapping[str, Any], name: str) -> Any:
        """A value among those that lead somewhere; between two such points of a continuous parameter, any that does."""
        points = self._lookahead.points[name]
        good = [point for point in points if self._lookahead.obstacle({**given, name: point}) is None]
        if not good:  # a rule that compares two continuous parameters can hide its last gap between the points
            raise InputError(f"no value of {name} keeps the rules given {dict(given)}; widen its range or drop a rule")
        chosen = good[self._random.integers(len(good))]
        if self.space.parameters[name].domain.values() is not None:
            return chosen
        index = points.index(chosen)
        low, high = points[max(index - 1, 0)], points[min(index + 1, len(points) - 1)]
        near = self.space.parameters[name].domain.snap(self._random.uniform(low, high))
        return near if self._lookahead.obstacle({**given, name: near}) is None else chosen
