"""An exponential moving average of the adapter, which is what is judged and exported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


class Ema:
    """Average of parameters over optimizer steps. The decay warms up as (1 + step) / (10 + step), so that the first
    values, of an adapter that is still nothing, do not linger in a short trial."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = list(parameters), decay
        self._averages = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the parameters after optimizer step `step` (from 1)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, [value.detach() for value in self._parameters], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages stand in the model for as long as this lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        # The tensors change hands, so no copy is made and nothing is rounded.
        for parameter, index in zip(self._parameters, range(len(self._averages)), strict=True):
            parameter.data, self._averages[index] = self._averages[index], parameter.data

    def state(self) -> list[torch.Tensor]:
        """Copies of the averages on the CPU."""
        return [value.detach().cpu().clone() for value in self._averages]

    @torch.no_grad()
    def restore(self, state: Sequence[torch.Tensor]) -> None:
        """Loads what `state` gave."""
        for mine, given in zip(self._averages, state, strict=True):
            mine.copy_(given)
