"""The LoRA engine: adapters that share one frozen base, and one backward pass for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trainables.lora.optimization import Optimization

CHECKPOINT = "engine.pt"


class LoraEngine:
    """Trains a list of adapters over one frozen base; the caller says what a loss is, one for each adapter.

    An adapter's loss depends on no other's weights, so the sum of the losses gives each its own gradient.
    """

    def __init__(self, lanes: Sequence[Optimization]) -> None:
        self.lanes = list(lanes)

    def accumulate(
        self, losses: Sequence[torch.Tensor | None], shares: Sequence[float], parts: Sequence[float] | None = None
    ) -> list[float]:
        """Adds the gradients of one micro-batch an adapter.

        `losses` are means over what this process has of each micro-batch (None: nothing). `shares` are its parts of the
        whole optimizer step, in samples or tokens: over a step and all processes they sum to 1, and the gradient is
        that of the step's mean. `parts` are its parts of the micro-batch, 1 unless several processes train together.

        Returns the losses over whole micro-batches, as numbers.

        Raises:
            TrialFailure: a loss is not finite or has exploded; no gradient of this micro-batch was computed.
        """
        parts = parts or [1.0] * len(losses)
        values = [lane.seen(loss, part) for lane, loss, part in zip(self.lanes, losses, parts, strict=True)]
        backward(
            lane.scaled(loss) * share
            for lane, loss, share in zip(self.lanes, losses, shares, strict=True)
            if loss is not None
        )
        return values

    def step(self) -> None:
        """One optimizer step of every adapter.

        Raises:
            TrialFailure: a gradient is not finite.
        """
        for lane in self.lanes:
            lane.step()

    def save(self, folder: Path, **more: Any) -> None:
        """Writes everything needed to continue, and what else the caller must know then, into one file."""
        torch.save(self.state(**more), folder / CHECKPOINT)

    def restore(self, folder: Path) -> dict[str, Any]:
        """Loads what `save` wrote; returns what else was written."""
        return self.resume(torch.load(folder / CHECKPOINT, weights_only=True, map_location="cpu"))

    def state(self, **more: Any) -> dict[str, Any]:
        """Everything needed to continue, and what else the caller must know then."""
        return {"lanes": [lane.state() for lane in self.lanes], "more": more}

    def resume(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Loads what `state` gave; returns what else the caller wanted to know."""
        for lane, mine in zip(self.lanes, state["lanes"], strict=True):
            lane.restore(mine)
        more: dict[str, Any] = state["more"]
        return more


def backward(losses: Iterable[torch.Tensor]) -> None:
    """One backward pass for all of them: through the sum, each loss gives its own adapter its own gradient."""
    weighted = list(losses)
    if weighted:
        sum(weighted[1:], start=weighted[0]).backward()
