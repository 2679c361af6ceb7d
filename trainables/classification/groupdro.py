"""Group-robust training: weights of groups that rise where the loss is high (Sagawa, Koh, Hashimoto and Liang 2020,
"Distributionally Robust Neural Networks", algorithm 1), with smoothed losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


class GroupWeights:
    """Weights q of groups, positive with sum 1.

    Each step takes the mean loss of every group that has rows in the batch: ``ema = gamma * ema + (1 - gamma) * loss``
    (at first the loss itself), then, after `warmup_epochs` of equal weights, ``q <- q * exp(eta * ema)``, normalised.
    """

    def __init__(self, groups: Sequence[str], *, eta: float, gamma: float, warmup_epochs: int) -> None:
        if not groups:
            raise ValueError("there are no groups")
        self.groups = tuple(groups)
        self._eta, self._gamma, self._warmup_epochs = eta, gamma, warmup_epochs
        self._log_q = dict.fromkeys(self.groups, -math.log(len(self.groups)))
        self._ema: dict[str, float] = {}

    @property
    def q(self) -> dict[str, float]:
        """The weight of each group."""
        return {name: math.exp(value) for name, value in self._log_q.items()}

    def update(self, losses: Mapping[str, float], epoch: int) -> None:
        """Takes the losses of one step in an epoch (0-based); groups without rows keep their smoothed loss."""
        for name, loss in losses.items():
            before = self._ema.get(name, loss)
            self._ema[name] = self._gamma * before + (1.0 - self._gamma) * loss
        if epoch < self._warmup_epochs:
            return
        # In logarithms: a weight may become very small, but no product of exponentials overflows.
        risen = {name: value + self._eta * self._ema.get(name, 0.0) for name, value in self._log_q.items()}
        top = max(risen.values())
        total = top + math.log(sum(math.exp(value - top) for value in risen.values()))
        self._log_q = {name: value - total for name, value in risen.items()}

    def state(self) -> dict[str, dict[str, float]]:
        """All that is needed to continue."""
        return {"log_q": dict(self._log_q), "ema": dict(self._ema)}

    def restore(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Loads what `state` gave."""
        self._log_q, self._ema = dict(state["log_q"]), dict(state["ema"])
