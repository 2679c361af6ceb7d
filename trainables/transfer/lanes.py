"""What training several lanes at once takes: rows of a batch, dropout masks and AdamW, each lane by its own seed and
with its own number of rows, so that it does not matter who trains beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trainables.transfer.stack import Mlp

Masks = Mapping[str, Mapping[int, torch.Tensor]]
"""Scaled dropout masks ``(K, B, width)`` by network and layer."""
BETAS = (0.9, 0.999)
EPSILON = 1e-8
_DRAWN_AT_ONCE = 1 << 21
_LEVELS = 1 << 16
"""Dropout compares 16 random bits, so a rate is kept to within 1.5e-5."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One step: `rows` ``(K, B)`` row numbers, `valid` ``(K, B)`` booleans (a lane with fewer rows is filled up),
    `active` the lanes that have a row at all."""

    rows: np.ndarray
    valid: np.ndarray
    active: np.ndarray


def batches(rows: Sequence[np.ndarray], size: int, generators: Sequence[np.random.Generator | None]) -> Iterator[Batch]:
    """One epoch. A lane's rows come in the order of its own generator; one without a generator sits it out."""
    orders = [
        mine if generator is None else generator.permutation(mine)
        for mine, generator in zip(rows, generators, strict=True)
    ]
    lengths = [0 if generator is None else len(mine) for mine, generator in zip(rows, generators, strict=True)]
    for start in range(0, max(lengths), size):
        chosen, valid = padded(
            [order[start : min(start + size, n)] for order, n in zip(orders, lengths, strict=True)], size
        )
        yield Batch(chosen, valid, np.asarray(valid.any(axis=1)))


def padded(rows: Sequence[np.ndarray], size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Ragged row numbers as ``(K, size)`` with zeros after each lane's end, and which of them are rows."""
    size = max(len(mine) for mine in rows) if size is None else size
    filled, valid = np.zeros((len(rows), size), dtype=np.int64), np.zeros((len(rows), size), dtype=bool)
    for lane, mine in enumerate(rows):
        filled[lane, : len(mine)], valid[lane, : len(mine)] = mine, True
    return filled, valid


class Dropout:
    """Draws the masks of several networks at once, lane by lane."""

    def __init__(self, nets: Sequence[Mlp], dtype: torch.dtype) -> None:
        self._names = [net.name for net in nets]
        self._places = [(net.name, layer) for net in nets for layer in net.drops]
        self._widths = [net.widths[layer] for net in nets for layer in net.drops]
        rates = [rate for net in nets for rate in net.drops.values()]
        levels = [min(_LEVELS - 1, round(rate * _LEVELS)) for rate in rates]
        self._below = np.repeat(np.array(levels, dtype=np.uint16), np.array(self._widths, dtype=np.int64))
        self._scale = torch.from_numpy(_LEVELS / (_LEVELS - self._below.astype(np.float64))).to(dtype)

    def draw(self, size: int, steps: int, generators: Sequence[np.random.Generator | None]) -> Iterator[Masks]:
        """For each step scaled masks ``(K, size, width)`` by network and layer; lanes without a generator drop
        everything. Many steps are drawn at once: of small networks, drawing would be most of the time."""
        if not self._widths:
            yield from ({name: {} for name in self._names} for _ in range(steps))
            return
        chunk = max(1, _DRAWN_AT_ONCE // (size * len(self._below)))
        for start in range(0, steps, chunk):
            kept = np.zeros((min(chunk, steps - start), len(generators), size, len(self._below)), dtype=bool)
            for lane, generator in enumerate(generators):
                if generator is not None:
                    bits = generator.integers(0, _LEVELS, (len(kept), *kept.shape[2:]), dtype=np.uint16)
                    np.greater_equal(bits, self._below, out=kept[:, lane])
            for step in kept:
                yield self._by_layer(torch.from_numpy(step).to(self._scale.dtype).mul_(self._scale))

    def _by_layer(self, mask: torch.Tensor) -> Masks:
        found: dict[str, dict[int, torch.Tensor]] = {name: {} for name in self._names}
        for (name, layer), part in zip(self._places, mask.split(self._widths, dim=2), strict=True):
            found[name][layer] = part
        return found


class AdamW:
    """AdamW (Loshchilov and Hutter 2019) on ``(K, P)`` weights, each lane with its own count of steps.

    Equal to torch's with `foreach` off; its own since torch's would move the weights of a lane that sits a step out.
    `rate` is a number, or one for each of the P weights.
    """

    def __init__(self, weights: torch.Tensor, rate: float | torch.Tensor, decay: float) -> None:
        self._weights, self._rate, self._decay = weights, rate, decay
        self.mean, self.square = torch.zeros_like(weights), torch.zeros_like(weights)
        self.steps = torch.zeros(len(weights), 1, dtype=weights.dtype)

    @torch.no_grad()
    def step(self, gradient: torch.Tensor, active: np.ndarray) -> None:
        """Moves the weights of the active lanes."""
        if active.all():
            self._move(self._weights, self.mean, self.square, self.steps, gradient)
            return
        chosen = torch.from_numpy(np.flatnonzero(active))
        weights, mean = self._weights[chosen], self.mean[chosen]
        square, steps = self.square[chosen], self.steps[chosen]
        self._move(weights, mean, square, steps, gradient[chosen])
        self._weights[chosen], self.mean[chosen] = weights, mean
        self.square[chosen], self.steps[chosen] = square, steps

    def _move(
        self,
        weights: torch.Tensor,
        mean: torch.Tensor,
        square: torch.Tensor,
        steps: torch.Tensor,
        gradient: torch.Tensor,
    ) -> None:
        steps += 1
        weights.mul_(1 - self._rate * self._decay)
        mean.lerp_(gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        # m / (1 - b1^t) over sqrt(v / (1 - b2^t)) + eps, rearranged so that all but one pass are in place.
        first, second = 1 - BETAS[0] ** steps, (1 - BETAS[1] ** steps).sqrt_()
        spread = square.sqrt().mul_(first / second).add_(EPSILON * first)
        if isinstance(self._rate, float):
            weights.addcdiv_(mean, spread, value=-self._rate)
        else:
            weights.sub_(self._rate * mean / spread)


def generators(
    seeds: Sequence[Sequence[int]], epoch: int, active: np.ndarray | None = None
) -> list[np.random.Generator | None]:
    """One generator a lane for one epoch, from the lane's seed and the epoch alone; None where a lane is not active."""
    return [
        np.random.Generator(np.random.SFC64([*seed, epoch])) if active is None or active[lane] else None
        for lane, seed in enumerate(seeds)
    ]
