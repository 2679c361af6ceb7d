"""Early stopping: the best epoch so far, its weights, and when to give up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Best:
    """The epoch with the best value. `patience` epochs without a better one are enough; 0 never stops, and keeps
    nothing."""

    def __init__(self, patience: int, *, higher_is_better: bool) -> None:
        self.patience = patience
        self._sign = 1.0 if higher_is_better else -1.0
        self._value: float | None = None
        self._weights: dict[str, torch.Tensor] = {}
        self.metrics: dict[str, float] = {}
        self.waited = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing has become better for as long as `patience` says."""
        return self.patience > 0 and self.waited >= self.patience

    def seen(self, value: float, metrics: Mapping[str, float], network: nn.Module) -> None:
        """Takes an epoch's value; the first of equal ones is kept."""
        if not self.patience:
            return
        if self._value is not None and self._sign * value <= self._sign * self._value:
            self.waited += 1
            return
        self._value, self.waited, self.metrics = value, 0, dict(metrics)
        self._weights = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}

    def put_back(self, network: nn.Module) -> None:
        """The best epoch's weights, where they were kept."""
        if self._weights:
            network.load_state_dict(self._weights)

    def state(self) -> dict[str, Any]:
        """All that is needed to continue."""
        return {"value": self._value, "weights": self._weights, "metrics": self.metrics, "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Loads what `state` gave."""
        self._value, self._weights = state["value"], state["weights"]
        self.metrics, self.waited = dict(state["metrics"]), state["waited"]
