"""The sampler behind `sampler: auto`: what will this configuration score at its end, and could it be the best?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy.special import log_ndtr, ndtr

from search_spaces.predictive.candidates import Cube, best_candidate, spread_out
from search_spaces.predictive.evidence import Horizon, read, thinned, time_of
from search_spaces.predictive.past import Evidence, Past, mark
from search_spaces.predictive.process import Points, Process, standardised
from search_spaces.space import Space

Array = NDArray[np.float64]

BOLDNESS = 2.0
"""By how much the model's standard deviation is widened. Under a scheduler a bad guess costs a ninth of a training and
a good one is worth many; measured in docs/LOG.md."""
MODELLED, FITTED, JUDGED, BELIEVED = 300, 100, 60, 300
"""Rows of the model, those its hyperparameters are found on, trials that say what fails, and running ones that count as
ending where they are predicted to; they bound the time of a suggestion."""
SCORED = 4
"""Trials with a score before the model is asked."""
GOOD = 8
SURE = 0.75
"""A configuration that succeeds with less probability is tried only where there is no other."""
MARGIN = (0.3, 0.3)
"""Least noise and length scale of what is known of failures."""
_OUT_OF_REACH = 1e6
_TWIN = 1e9  # behind even what is out of reach


class PredictiveSampler(BaseSampler):
    """Bayesian optimization of predicted final scores.

    A Gaussian process over configuration and budget (`predictive.process`) learns from the curves of complete, stopped
    and running trials alike, which is learning-curve extrapolation: a stopped trial counts as what it would have
    become. The next configuration is the one with the largest expected improvement at its own horizon over the best
    predicted one, times the probability that it does not fail (another process on which trials did). Running trials
    count as ending where they are predicted to.

    Start-up trials are spread out. A suggestion is a pure function of the study, the seed and the trial's number.
    `horizon` gives a trial's longest budget from its parameters; without it, the longest seen stands for all.
    `past`, of the same space and horizon, may be shared by samplers of one study, so that each trial is read once.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        n_startup_trials: int,
        horizon: Horizon | None = None,
        past: Past | None = None,
    ) -> None:
        self._space, self._cube, self._horizon = space, Cube(space), horizon
        self._past = Past(space, horizon) if past is None else past
        self._rng = np.random.default_rng(seed)
        self._independent = RandomSampler(seed)
        # Of a small space, fewer: one more than its coordinates.
        self._n_startup = max(SCORED, min(n_startup_trials, len(space.parameters) + 1))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """All parameters are drawn together."""
        return self._space.distributions()

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],  # noqa: ARG002  # Optuna's signature
    ) -> dict[str, Any]:
        """The next configuration; nothing where somebody else chose it."""
        if "fixed_params" in trial.system_attrs:
            return {}
        evidence = self._past.evidence(study, without=trial.number)
        if evidence.n_observed < self._n_startup or evidence.n_scored < SCORED:
            return spread_out(self._cube, evidence.params, self._rng)
        return self._propose(evidence)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value on its own: only where what was drawn together had to give way to a rule."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Nothing: what became of the trial is in the study."""

    def _propose(self, evidence: Evidence) -> dict[str, Any]:
        model = _Model(evidence, self._horizon)
        succeeds = _Success(evidence)

        def value(rows: Array) -> Array:
            x = self._cube.vectors(rows)
            ends = self._ends(rows, evidence.longest)
            # A second look at the same configuration teaches about noise only; whoever wants that verifies the winner.
            is_twin = np.array([mark(vector) in evidence.tried for vector in x])
            return model.log_expected_improvement(x, ends) + succeeds.penalty(x) - _TWIN * is_twin

        return best_candidate(self._cube, value, model.good(), self._rng)

    def _ends(self, rows: Array, longest_budget: int) -> Array:
        if self._horizon is None:
            return np.ones(len(rows))
        return np.array([time_of(self._horizon(self._cube.params(row)), longest_budget) for row in rows])


class _Model:
    """Predicted final scores, given what was observed and what runs."""

    def __init__(self, evidence: Evidence, horizon: Horizon | None) -> None:
        begun = [seen.observed for seen in evidence.begun]
        rows = [(index, *report) for index, one in enumerate(begun) for report in read(one, evidence.longest)]
        vectors = np.array([seen.vector for seen in evidence.begun])
        scores = np.array([score for _, _, score in rows])
        times = np.array([time for _, time, _ in rows])
        seen = Points(vectors[[index for index, _, _ in rows]], times, standardised(scores))
        seen = seen.taken(thinned(seen.y, MODELLED))
        self._process = Process.fit(seen, seen.taken(thinned(seen.y, FITTED)))

        ends = np.ones(len(begun))
        if horizon is not None:
            ends = np.array([time_of(horizon(one.params), evidence.longest) for one in begun])
        self._finals = self._process.predict(vectors, ends)[0]
        self._begun = begun
        self.best = float(self._finals.max())
        running = np.flatnonzero([one.runs for one in begun])
        if running.size:  # told as ending where they are predicted to, so that the next guess lies elsewhere
            running = running[thinned(self._finals[running], BELIEVED)]
            believed = Points(vectors[running], ends[running], self._finals[running])
            self._process = self._process.given(seen.joined(believed))

    def good(self) -> list[Mapping[str, Any]]:
        """The trials of the best predicted final scores."""
        return [self._begun[int(index)].params for index in np.argsort(-self._finals)[:GOOD]]

    def log_expected_improvement(self, x: Array, ends: Array) -> Array:
        """Logarithm of the expected improvement over the best predicted final score, with a widened deviation."""
        mean, deviation = self._process.predict(x, ends)
        return log_expected_improvement(mean, BOLDNESS * deviation, self.best)


class _Success:
    """How probable it is that a configuration does not fail, from those that did and did not."""

    def __init__(self, evidence: Evidence) -> None:
        self._process: Process | None = None
        good, failed = [seen for seen in evidence.begun if seen.observed.curve], evidence.failed
        if not failed or not good:
            return
        x = np.array([seen.vector for seen in (*good, *failed)])
        y = np.append(np.ones(len(good)), -np.ones(len(failed)))
        keep = _recent(len(good), len(failed))
        # Where trials fail the score is often best just before: without a margin every other one would fail there.
        self._process = Process.fit(Points(x, np.ones(len(x)), y).taken(keep)).smoothed(*MARGIN)

    def penalty(self, x: Array) -> Array:
        """What the logarithm of the expected improvement loses: minus that of the probability. What is not
        `SURE` enough comes after everything else, however sure the model is that nothing else improves.
        """
        if self._process is None:
            return np.zeros(len(x))
        mean, deviation = self._process.predict(x, np.ones(len(x)))
        log_probability = log_ndtr(mean / np.maximum(deviation, 0.1))
        return np.asarray(log_probability - _OUT_OF_REACH * np.maximum(0.0, SURE - np.exp(log_probability)))


def _recent(good: int, failed: int) -> NDArray[np.intp]:
    """The newest of both kinds, `JUDGED` in all."""
    kept = min(failed, JUDGED // 2)
    first = max(0, good - (JUDGED - kept))
    return np.append(np.arange(first, good), np.arange(good + failed - kept, good + failed))


def log_expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Logarithm of E[max(0, f - best)] for f ~ N(mean, deviation^2), precise far below the best.

    Source: Ament et al., Unexpected Improvements to Expected Improvement, 2023; their asymptotic form below -5.
    """
    z = (mean - best) / deviation
    log_density = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    near = np.log(np.maximum(np.exp(log_density) + z * ndtr(z), 1e-300))
    far = log_density - 2 * np.log(np.maximum(-z, 1.0))
    return np.asarray(np.where(z > -5, near, far) + np.log(deviation))
