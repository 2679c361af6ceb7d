"""What repeated measurements say of a few candidates: how good each is, and how likely each is the best. Pure NumPy.

The model: value of candidate c with seed s = its worth + what the seed does to all + noise. Worths are drawn around a
common mean, seeds around zero, and each candidate has a noise of its own around a common one; the four spreads are
unknown and integrated over. So worths are pulled together as far as the noise asks for it, which is what keeps the
interval of the *chosen* one honest: the best of several measured means is a lucky value again, and a plain Student
interval around it covers the truth too seldom. The search's own value of each candidate is one measurement more, with a
shift that is common to all and that nothing is known of, and with noise of its own beside the candidate's (trials of a
search may have trained with other seeds each): it helps to tell candidates apart, and says nothing of how good they
are. That it chose them does no harm: given how worths are distributed, a value says of its trial what it would have
said had it chosen nothing.

Source: the random-effects model of Gelman et al., Bayesian Data Analysis (2013), chapter 5 (half-Cauchy spreads of few
groups: Gelman 2006, Bayesian Analysis 1(3)); noise by candidate as in Smyth 2004, SAGMB 3(1). Sampled by Gibbs, with
the spreads of worths and seeds drawn on a grid after means are integrated out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
CHAINS, WARM_UP, KEPT = 48, 40, 100
_SMALLEST, _LARGEST, _STEPS = 0.01, 30.0, 48
"""Spreads that are thought possible, in units of the noise's; a larger one where the values differ by more."""
_FREEDOM = np.array([2.0, 4.0, 8.0, 16.0, 64.0])
"""How alike the noises of candidates may be: degrees of freedom of their distribution."""
_TINY = 1e-9


@dataclass(frozen=True)
class Estimate:
    """Of one candidate: its worth in the metric's own units with an interval, and the probability that none of the
    others is better. `mean` is the posterior's."""

    mean: float
    low: float
    high: float
    best: float


def estimates(
    measured: Array | Sequence[Sequence[float]],
    searched: Sequence[float] | None = None,
    *,
    maximize: bool = False,
    confidence: float = 0.9,
) -> list[Estimate]:
    """What measurements say of candidates; the same numbers give the same answer, in whatever order candidates stand.

    Args:
        measured: ``(candidates, seeds)`` finite values; the seeds of a column are the same for all.
        searched: the search's own value of each candidate, where it may be used.
        maximize: whether higher is better.
        confidence: of the intervals, between 0 and 1; they are central and of equal tails.

    Raises:
        ValueError: there are fewer than two seeds, no candidate, or values that are not finite.
    """
    values = np.asarray(measured, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2 or not np.isfinite(values).all():
        raise ValueError(f"got values of shape {values.shape}; must be (candidates, 2 or more seeds), all finite")
    extra = None if searched is None else np.asarray(searched, dtype=np.float64)
    if extra is not None and (extra.shape != values.shape[:1] or not np.isfinite(extra).all()):
        raise ValueError(f"got {extra.shape} values of the search; must be one a candidate, all finite")
    order = _canonical(values, extra)
    drawn = worths(values[order], None if extra is None else extra[order])
    found = _summary(drawn, maximize, confidence)
    return [found[place] for place in np.argsort(order)]


def chosen(found: Sequence[Estimate], *, maximize: bool = False) -> int:
    """The candidate to recommend: the one that is expected to be worth most; the first of equals."""
    means = [one.mean for one in found]
    return int(np.argmax(means) if maximize else np.argmin(means))


def worths(values: Array, searched: Array | None = None, seed: int = 0) -> Array:
    """Draws of the candidates' worths, ``(draws, candidates)``."""
    location, scale = float(values.mean()), float(values.std())
    if scale <= _TINY * max(1.0, abs(location)):  # nothing differs at all: there is no noise and no difference
        return np.tile(values.mean(axis=1), (2, 1))
    extra = None if searched is None else (searched - location) / scale
    sampler = _Gibbs((values - location) / scale, extra, np.random.default_rng(seed))
    kept = []
    for step in range(WARM_UP + KEPT):
        sampler.step()
        if step >= WARM_UP:
            kept.append(sampler.worth)
    drawn: Array = np.concatenate(kept) * scale + location
    return drawn


def _canonical(values: Array, searched: Array | None) -> Array:
    """An order of candidates that depends on nothing but their values."""
    keys = [*values.T[::-1], values.mean(axis=1)]
    return np.lexsort(keys if searched is None else [searched, *keys])


def _summary(drawn: Array, maximize: bool, confidence: float) -> list[Estimate]:
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    leaders = drawn == (drawn.max if maximize else drawn.min)(axis=1, keepdims=True)
    best = (leaders / leaders.sum(axis=1, keepdims=True)).mean(axis=0)
    columns = zip(drawn.mean(axis=0), low, high, best, strict=True)
    return [Estimate(*(float(cell) for cell in column)) for column in columns]


class _Grid:
    """Variances that are thought possible, with the logarithm of a half-Cauchy of scale `unit` over their roots."""

    def __init__(self, unit: float, widest: float) -> None:
        roots = np.geomspace(_SMALLEST * unit, max(_LARGEST * unit, widest), _STEPS)
        self.variances: Array = roots**2
        self.prior: Array = np.log(roots) - np.log1p((roots / unit) ** 2)  # the grid is even in the logarithm


class _Gibbs:
    """Many chains side by side. Arrays begin with the chain; then candidate, then seed (the search's is the last)."""

    def __init__(self, values: Array, searched: Array | None, rng: np.random.Generator) -> None:
        self.rng, self.n_seeds = rng, values.shape[1]
        self.values = values if searched is None else np.column_stack([values, searched])
        k, self.n = self.values.shape
        rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
        freedom = max(1, (k - 1) * (self.n_seeds - 1))
        rough = (rest**2).sum() / freedom if k > 1 else values.var(ddof=1)
        self.unit = max(float(np.sqrt(rough)), 1e-4)
        """A rough guess of the noise's standard deviation; the scale of what is thought of the spreads beforehand."""
        self.reach = max(self.unit, float(values.std(axis=1, ddof=1).mean()))
        self.seeds, self.own = np.zeros((CHAINS, self.n)), np.zeros((CHAINS, k))
        widest = 10 * max(1.0, float(np.ptp(self.values)))
        self.worth_grid, self.seed_grid = (_Grid(unit, widest) for unit in (self.unit, self.reach))
        if searched is not None:
            self.seeds[:, -1] = (searched - values.mean(axis=1)).mean()
        self.noise = np.full((CHAINS, k), self.unit**2)
        self.common = np.full(CHAINS, self.unit**2)
        self.freedom = np.full(CHAINS, 8.0)
        self.between = np.full((CHAINS, 1), self.reach**2)
        self.worth = np.tile(values.mean(axis=1), (CHAINS, 1))

    def step(self) -> None:
        """Draws every unknown once, given the others."""
        self._worths()
        self._seed_effects()
        self._own_effects()
        self._shift()
        self._noises()

    @property
    def plain(self) -> Array:
        """Values ``(chains, candidates, seeds)`` without what the search did to single candidates."""
        plain = np.broadcast_to(self.values, (CHAINS, *self.values.shape)).copy()
        plain[:, :, self.n_seeds :] -= self.own[:, :, None]
        return plain

    def _worths(self) -> None:
        seen = (self.plain - self.seeds[:, None, :]).mean(axis=2)
        known = self.noise / self.n
        spread = self._spread(seen, known, self.worth_grid, centred=False)
        weight = 1 / (spread + known)
        total = weight.sum(axis=1, keepdims=True)
        middle = (weight * seen).sum(axis=1, keepdims=True) / total + self._normal(total.shape) / np.sqrt(total)
        precision = 1 / known + 1 / spread
        mean = (seen / known + middle / spread) / precision
        self.worth = mean + self._normal(mean.shape) / np.sqrt(precision)

    def _seed_effects(self) -> None:
        precision = (1 / self.noise).sum(axis=1, keepdims=True)
        left = self.plain - self.worth[:, :, None]
        seen = (left / self.noise[:, :, None]).sum(axis=1) / precision
        self.seeds = np.array(seen)
        self.seeds[:, self.n_seeds :] += self._normal((CHAINS, self.n - self.n_seeds)) / np.sqrt(precision)
        ours = seen[:, : self.n_seeds]
        known = np.broadcast_to(1 / precision, ours.shape)
        self.between = self._spread(ours, known, self.seed_grid, centred=True)
        both = 1 / (1 / known + 1 / self.between)
        self.seeds[:, : self.n_seeds] = ours * both / known + self._normal(ours.shape) * np.sqrt(both)

    def _own_effects(self) -> None:
        """What the search did to single candidates: noise of its values beside that of measurements."""
        if self.n == self.n_seeds:
            return
        seen = self.values[:, -1] - self.worth - self.seeds[:, -1:]
        spread = self._spread(seen, self.noise, self.seed_grid, centred=True)
        both = 1 / (1 / self.noise + 1 / spread)
        self.own = seen * both / self.noise + self._normal(seen.shape) * np.sqrt(both)

    def _shift(self) -> None:
        """Worths up and all seeds down changes no value: drawn at once, since the two alone would creep."""
        ours = self.seeds[:, : self.n_seeds]
        by = ours.mean(axis=1, keepdims=True) + self._normal((CHAINS, 1)) * np.sqrt(self.between / self.n_seeds)
        self.seeds, self.worth = self.seeds - by, self.worth + by

    def _noises(self) -> None:
        left = self.plain - self.worth[:, :, None] - self.seeds[:, None, :]
        squares = (left**2).sum(axis=2)
        freedom, common = self.freedom[:, None], self.common[:, None]
        drawn = self.rng.chisquare(np.broadcast_to(freedom + self.n, squares.shape))
        self.noise = np.maximum((freedom * common + squares) / drawn, (1e-3 * self.unit) ** 2)
        inverse = (1 / self.noise).sum(axis=1)
        k = self.noise.shape[1]
        self.common = self.rng.gamma(k * self.freedom / 2) / (self.freedom * inverse / 2)
        self.freedom = _FREEDOM[self._drawn(self._of_freedom())]

    def _of_freedom(self) -> Array:
        """Log density of each in `_FREEDOM`, up to a constant of the chain: a scaled inverse chi-squared's."""
        half, k = _FREEDOM / 2, self.noise.shape[1]
        constant = k * (half * np.log(half) - _LOG_GAMMA + half * np.log(self.common)[:, None])
        return (
            constant
            - (half + 1) * np.log(self.noise).sum(axis=1)[:, None]
            - half * (self.common * (1 / self.noise).sum(axis=1))[:, None]
        )

    def _spread(self, seen: Array, known: Array, grid: _Grid, *, centred: bool) -> Array:
        """A draw of the variance ``(chains, 1)`` of true values that were seen with `known` variances, their mean
        integrated out unless it is zero."""
        total = grid.variances[:, None] + known[:, None, :]
        weight = 1 / total
        away = (weight * seen[:, None, :] ** 2).sum(axis=2)
        density = -0.5 * np.log(total).sum(axis=2) + grid.prior
        if not centred:
            sums = weight.sum(axis=2)
            away -= (weight * seen[:, None, :]).sum(axis=2) ** 2 / sums
            density -= 0.5 * np.log(sums)
        return grid.variances[self._drawn(density - 0.5 * away)][:, None]

    def _drawn(self, density: Array) -> Array:
        """One place a row, by its log density."""
        place: Array = np.argmax(density + self.rng.gumbel(size=density.shape), axis=1)
        return place

    def _normal(self, shape: tuple[int, ...]) -> Array:
        return self.rng.standard_normal(shape)


_LOG_GAMMA = np.log([1.0, 1.0, 6.0, 5040.0, 8.222838654177922e33])
"""Of half of `_FREEDOM`."""
