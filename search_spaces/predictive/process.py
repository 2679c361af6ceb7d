"""A Gaussian process over configuration and budget: what the score of any configuration is at any budget.

The covariance of two reports, of configurations x and x' at times t and t' (1 is the longest budget), is

    k(x, x') * (s1 * exp(-|t - t'| / r) + s2 * (1 - t) * (1 - t')) + 1 + 4 * (1 - t) * (1 - t')

with a Matern-5/2 kernel k that has a length scale for each coordinate. Along t it is an Ornstein-Uhlenbeck process,
Markov: the latest report says nearly all. What follows it is the part of a curve's rise that depends on the
configuration; the last two terms are an unknown level and an unknown rise that all share. Coordinates are warped by
Kumaraswamy's distribution function (Snoek et al., Input Warping for Bayesian Optimization of Non-stationary Functions,
2014), which stretches the side of a range on which scores change faster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]

_ROOT5 = 5**0.5
_JITTER = 1e-6
_EDGE = 1e-4
"""Distance from 0 and 1 at which coordinates are cut: the warp's slope has no bound there."""
_LEVEL, _RISE = 1.0, 4.0
_ITERATIONS = 40

# Log-normal priors as (median, spread of the logarithm, lowest, highest); scores are standardised.
_LENGTH = (1.0, 0.03, 30.0)
_WARP = (1.0, 0.5, 0.22, 4.5)
_SCALARS = (
    (1.0, 1.0, 0.05, 20.0),  # s1
    (0.003, 2.0, 1e-6, 1.0),  # variance of the noise
    (1.5, 1.0, 0.1, 20.0),  # r
    (0.3, 1.0, 1e-3, 10.0),  # s2
)


@dataclass(frozen=True)
class Points:
    """Reports: `x` in [0, 1], shape (n, d); `t` in [0, 1] and standardised scores `y`, higher is better, shape (n,)."""

    x: Array
    t: Array
    y: Array

    def __len__(self) -> int:
        return len(self.y)

    def taken(self, which: NDArray[np.intp]) -> Points:
        """Some of them, by index."""
        return Points(self.x[which], self.t[which], self.y[which])

    def joined(self, other: Points) -> Points:
        """These and others."""
        return Points(np.vstack([self.x, other.x]), np.append(self.t, other.t), np.append(self.y, other.y))


@dataclass(frozen=True)
class Process:
    """The process with settled hyperparameters, given `points`."""

    theta: Array
    points: Points
    factor: Array
    weights: Array

    @classmethod
    def fit(cls, points: Points, fitted_on: Points | None = None) -> Process:
        """The most probable hyperparameters for `fitted_on` (default: `points`), from the same start each time, so that
        the same reports always give the same process.
        """
        data = points if fitted_on is None else fitted_on
        start, lowest, highest = _prior(data.x.shape[1])[0], *_bounds(data.x.shape[1])
        found = minimize(
            _loss, start, args=(data,), jac=True, method="L-BFGS-B", bounds=list(zip(lowest, highest, strict=True)),
            options={"maxiter": _ITERATIONS},
        )  # fmt: skip
        return _given(np.asarray(found.x), points)

    def given(self, points: Points) -> Process:
        """The same hyperparameters, other reports."""
        return _given(self.theta, points)

    def smoothed(self, noise: float, length: float) -> Process:
        """The same reports under at least this variance of the noise and these length scales: with a soft edge where
        scores jump.
        """
        d = self.points.x.shape[1]
        theta = self.theta.copy()
        theta[:d] = np.maximum(theta[:d], np.log(length))
        theta[3 * d + 1] = max(theta[3 * d + 1], np.log(noise))
        return _given(theta, self.points)

    def predict(self, x: Array, t: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the score, without the noise of a report; each of shape (n,)."""
        parts = _Parts(self.theta, x.shape[1])
        across = parts.covariance(x, t, self.points.x, self.points.t)
        solved = solve_triangular(self.factor, across.T, lower=True)
        own = parts.s1 + parts.s2 * (1 - t) ** 2 + _LEVEL + _RISE * (1 - t) ** 2
        return across @ self.weights, np.sqrt(np.maximum(own - (solved**2).sum(axis=0), 1e-9))


class _Parts:
    """The logarithms in `theta` as what they mean."""

    def __init__(self, theta: Array, d: int) -> None:
        self.lengths, self.a, self.b = np.exp(theta[:d]), np.exp(theta[d : 2 * d]), np.exp(theta[2 * d : 3 * d])
        self.s1, self.noise, self.r, self.s2 = (float(value) for value in np.exp(theta[3 * d :]))

    def warped(self, x: Array) -> Array:
        return np.asarray(1 - (1 - np.clip(x, _EDGE, 1 - _EDGE) ** self.a) ** self.b)

    def along(self, t: Array, other: Array) -> Array:
        """The factor of the configuration's kernel."""
        return np.asarray(
            self.s1 * np.exp(-np.abs(t[:, None] - other[None, :]) / self.r) + self.s2 * np.outer(1 - t, 1 - other)
        )

    def covariance(self, x: Array, t: Array, other_x: Array, other_t: Array) -> Array:
        r = cdist(self.warped(x) / self.lengths, self.warped(other_x) / self.lengths)
        return _matern(r)[0] * self.along(t, other_t) + _shared(t, other_t)


def _given(theta: Array, points: Points) -> Process:
    parts = _Parts(theta, points.x.shape[1])
    covariance = parts.covariance(points.x, points.t, points.x, points.t)
    covariance[np.diag_indices(len(points))] += parts.noise + _JITTER
    factor = cholesky(covariance, lower=True)
    return Process(theta, points, factor, cho_solve((factor, True), points.y))


def _matern(r: Array) -> tuple[Array, Array]:
    """Matern-5/2 of a scaled distance, and minus twice its derivative by the squared distance."""
    decay = np.exp(-_ROOT5 * r)
    return (1 + _ROOT5 * r + 5 / 3 * r**2) * decay, 5 / 3 * (1 + _ROOT5 * r) * decay


def _shared(t: Array, other: Array) -> Array:
    return np.asarray(_LEVEL + _RISE * np.outer(1 - t, 1 - other))


def _loss(theta: Array, points: Points) -> tuple[float, Array]:
    """Minus the logarithm of the posterior density of hyperparameters (up to a constant), and its gradient."""
    d, n = points.x.shape[1], len(points)
    parts, t = _Parts(theta, d), points.t
    warped = parts.warped(points.x)
    differences = (warped[:, None, :] - warped[None, :, :]) / parts.lengths
    kernel, slope = _matern(np.sqrt((differences**2).sum(axis=-1)))
    along = parts.along(t, t)
    covariance = kernel * along + _shared(t, t) + (parts.noise + _JITTER) * np.eye(n)
    try:
        factor = cholesky(covariance, lower=True)
    except LinAlgError:
        return 1e10, np.zeros_like(theta)
    weights = cho_solve((factor, True), points.y)
    likelihood = -0.5 * points.y @ weights - np.log(np.diag(factor)).sum()
    outer = 0.5 * (np.outer(weights, weights) - cho_solve((factor, True), np.eye(n)))

    gradient = np.empty_like(theta)
    by_distance = -outer * along * slope
    gradient[:d] = -np.einsum("ij,ijk->k", by_distance, differences**2)
    pulls = np.einsum("ij,ijk->ik", by_distance, differences) / parts.lengths
    by_a, by_b = _warp_slopes(points.x, parts)
    # A pair pulls at both its ends, with opposite signs.
    gradient[d : 2 * d], gradient[2 * d : 3 * d] = 2 * (pulls * by_a).sum(axis=0), 2 * (pulls * by_b).sum(axis=0)
    by_kernel, apart = outer * kernel, np.abs(t[:, None] - t[None, :])
    walk = parts.s1 * np.exp(-apart / parts.r)
    gradient[3 * d :] = (
        (by_kernel * walk).sum(),
        np.trace(outer) * parts.noise,
        (by_kernel * walk * apart).sum() / parts.r,
        (by_kernel * parts.s2 * np.outer(1 - t, 1 - t)).sum(),
    )
    middle, spread = _prior(d)
    score = (theta - middle) / spread
    return float(0.5 * score @ score - likelihood), score / spread - gradient


def _warp_slopes(x: Array, parts: _Parts) -> tuple[Array, Array]:
    """Derivatives of warped coordinates by the logarithms of a and b, each of shape (n, d)."""
    inside = np.clip(x, _EDGE, 1 - _EDGE)
    powered = inside**parts.a
    rest = 1 - powered
    by_a = parts.b * rest ** (parts.b - 1) * powered * np.log(inside) * parts.a
    return np.asarray(by_a), np.asarray(-(rest**parts.b) * np.log(rest) * parts.b)


def _prior(d: int) -> tuple[Array, Array]:
    """Middle and spread of the logarithms of the hyperparameters.

    Length scales grow with the root of the number of coordinates, as distances do (Hvarfner et al., Vanilla Bayesian
    Optimization Performs Great in High Dimensions, 2024).
    """
    middle = [np.log(0.5 * d**0.5)] * d + [np.log(_WARP[0])] * 2 * d + [np.log(one[0]) for one in _SCALARS]
    spread = [_LENGTH[0]] * d + [_WARP[1]] * 2 * d + [one[1] for one in _SCALARS]
    return np.array(middle), np.array(spread)


def _bounds(d: int) -> tuple[Array, Array]:
    lowest = [_LENGTH[1]] * d + [_WARP[2]] * 2 * d + [one[2] for one in _SCALARS]
    highest = [_LENGTH[2]] * d + [_WARP[3]] * 2 * d + [one[3] for one in _SCALARS]
    return np.log(lowest), np.log(highest)


def standardised(scores: Array) -> Array:
    """Scores, shape (n,), with mean 0 and deviation 1, cut from below: an exploded loss says "bad", not how bad."""
    low, middle, high = np.percentile(scores, (25, 50, 75))
    kept = np.maximum(scores, middle - 5 * (high - low)) if high > low else scores
    spread = kept.std()
    return np.asarray((kept - kept.mean()) / (spread if spread > 0 else 1.0))
