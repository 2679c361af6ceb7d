"""An Optuna sampler that keeps a space's rules, around any other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseGASampler, BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search_spaces.domains import Number
from search_spaces.grid import GridOfSpace
from search_spaces.masked_tpe import MaskedTPE
from search_spaces.points import settled
from search_spaces.predictive import PredictiveSampler
from search_spaces.regions import Region
from search_spaces.space import Space
from search_spaces.strata import strata_of_trial
from search_spaces.thinning import Follower

REDRAWS = 7
"""How often the sampler is asked again for a value before it is restricted to the region; measured to be a little
better than restricting it at once (docs/LOG.md)."""

Repair = Literal["nearest", "rescaled"]


@dataclass(frozen=True)
class _Draw:
    """What belongs to one trial that is being drawn; several may be at a time."""

    wrapped: BaseSampler
    random: np.random.Generator
    strata: dict[str, float]
    together: dict[str, Any] = field(default_factory=dict)


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
        self._shared = make(seed)
        self._begun: dict[int, _Draw] = {}
        self._follower, self._completed = Follower(), 0

    def __str__(self) -> str:
        return str(self._shared)

    @property
    def learns_from_running(self) -> bool:
        """Whether what a trial has reported so far helps: only where final scores are predicted."""
        return isinstance(self._shared, PredictiveSampler)

    def exhausted(self, study: Study) -> bool:
        """Whether there is nothing left to try: only ever of a grid."""
        return isinstance(self._shared, GridOfSpace) and self._shared.exhausted(study)

    def marks(self, study: Study) -> dict[str, Any] | None:
        """What a genetic sampler would have written on the next completed trial, for one that it did not draw itself:
        its generation. Without it a study that is continued would begin at the first generation again.
        """
        if not isinstance(self._shared, BaseGASampler) or self._shared.population_size is None:
            return None
        news = self._follower.look(study)
        completed = sum(trial.state == TrialState.COMPLETE for trial in news.finished)
        self._completed = completed + (0 if news.anew else self._completed)
        return {self._shared._get_generation_key(): self._completed // self._shared.population_size}

    def reseed_rng(self) -> None:
        """Gives the wrapped sampler another seed; Optuna asks for it when it copies samplers between threads."""
        self._shared.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seeds the trial."""
        self._draw_of(trial).wrapped.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Passed on."""
        self._draw_of(trial).wrapped.after_trial(study, trial, state, values)
        del self._begun[trial.number]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Passed on: which values the wrapped sampler draws together."""
        return self._draw_of(trial).wrapped.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values drawn together, repaired one after another given the ones before."""
        draw = self._draw_of(trial)
        together = draw.wrapped.sample_relative(study, trial, search_space)
        for name in (name for name in self.space.order if name in together):
            draw.together[name] = self._kept(draw, name, self._snapped(name, together[name]))
        return draw.together

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """One value, given those that the trial has."""
        draw = self._draw_of(trial)
        given = {**draw.together, **trial.params}
        region = self.space.lookahead.region(given, param_name)
        if param_name in draw.strata:
            return settled(self.space, given, param_name, lambda: region.at(draw.strata[param_name]))

        def once() -> Any:
            drawn = draw.wrapped.sample_independent(study, trial, param_name, param_distribution)
            return self._snapped(param_name, drawn)

        def within() -> Any:
            for _ in range(REDRAWS):
                if (value := once()) in region:
                    return value
            if isinstance(draw.wrapped, MaskedTPE):
                drawn = draw.wrapped.sample_within(study, trial, param_name, param_distribution, region)
                if (value := self._snapped(param_name, drawn)) in region:
                    return value
            return region.uniform(draw.random)

        first = once()
        return (
            first if self._is_open(given, param_name, first, region) else settled(self.space, given, param_name, within)
        )

    def _draw_of(self, trial: FrozenTrial) -> _Draw:
        if trial.number not in self._begun:
            seeds = np.random.SeedSequence([self._seed, trial.number]).generate_state(2)
            stratified = () if isinstance(self._shared, GridOfSpace) else self.space.stratify
            self._begun[trial.number] = _Draw(
                self._make(int(seeds[1])) if self._reseed else self._shared,
                np.random.default_rng(seeds[0]),
                strata_of_trial(stratified, trial.number, self._n_startup_trials, self._seed),
            )
        return self._begun[trial.number]

    def _kept(self, draw: _Draw, name: str, value: Any) -> Any:
        """A value that was drawn together with others, or what takes its place."""
        given, domain = draw.together, self.space.parameters[name].domain
        region = self.space.lookahead.region(given, name)
        if name in draw.strata:
            return settled(self.space, given, name, lambda: region.at(draw.strata[name]))
        if self._is_open(given, name, value, region):
            return value
        if isinstance(domain, Number):
            place = region.at(domain.position(value)) if self._repair == "rescaled" else region.nearest(value)
            return settled(self.space, given, name, lambda: place)
        return region.uniform(draw.random)

    def _is_open(self, given: Mapping[str, Any], name: str, value: Any, region: Region) -> bool:
        lookahead = self.space.lookahead
        if value in region and lookahead.is_exact(name):
            return True
        rule = lookahead.obstacle({**given, name: value})
        if rule is not None:
            self.rejected[rule] += 1
        return rule is None

    def _snapped(self, name: str, value: Any) -> Any:
        return self.space.parameters[name].domain.snap(value)
