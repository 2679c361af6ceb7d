"""The chance of one trial among several: what dropout draws for it is what it would draw alone."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch


class Randomness:
    """States of torch's generators that are one trial's own: of the CPU's, and of a GPU's where that is the device."""

    def __init__(self, device: torch.device) -> None:
        self._generators = [torch.default_generator]
        if device.type == "cuda":
            self._generators.append(torch.cuda.default_generators[device.index or 0])
        self._states = [generator.get_state() for generator in self._generators]

    def begin(self, seed: int) -> None:
        """What ``torch.manual_seed`` is to a trial that is alone."""
        fresh = [torch.Generator(generator.device).manual_seed(seed) for generator in self._generators]
        self._states = [generator.get_state() for generator in fresh]

    @contextmanager
    def in_place(self) -> Generator[None, None, None]:
        """What torch draws meanwhile is this trial's; others find their own state again."""
        theirs = [generator.get_state() for generator in self._generators]
        self._set(self._states)
        try:
            yield
        finally:
            self._states = [generator.get_state() for generator in self._generators]
            self._set(theirs)

    def _set(self, states: list[torch.Tensor]) -> None:
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)

    def state(self) -> list[torch.Tensor]:
        """Where it stands."""
        return [state.clone() for state in self._states]

    def restore(self, state: list[torch.Tensor]) -> None:
        """Loads what `state` gave."""
        self._states = [one.clone() for one in state]
