"""Low-rank updates of several adapters in a handful of batched products.

A batch holds the rows of one adapter after those of another. Neighbours with as many rows are a run: their matrices are
stacked, smaller ranks padded with zeros, and each step of the computation is one batched product over the run. No
product, forward or backward, mixes rows of two adapters, so what is not finite in one stays in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True)
class Run:
    """Adapters of these `ranks` whose rows, equally many, stand from `start` up to `stop` in the batch. `scales` is
    theirs, (count, 1, 1)."""

    start: int
    stop: int
    ranks: tuple[int, ...]
    scales: torch.Tensor

    @property
    def count(self) -> int:
        """How many adapters."""
        return len(self.ranks)

    @property
    def images(self) -> int:
        """Rows of the batch that each has."""
        return (self.stop - self.start) // len(self.ranks)


class Form(Protocol):
    """How activations are laid out, and the products of a low-rank update in it, for a stack of adapters: x (inputs),
    `inner` (rank) and y (outputs); `down` is (count, rank, inputs), `up` (count, outputs, rank)."""

    def view(self, x: torch.Tensor, run: Run) -> torch.Tensor: ...
    def spread(self, stacked: torch.Tensor, run: Run) -> torch.Tensor: ...
    def unstack(self, gradient: torch.Tensor, run: Run) -> torch.Tensor: ...
    def down(self, x: torch.Tensor, down: torch.Tensor) -> torch.Tensor: ...
    def up(self, y: torch.Tensor, inner: torch.Tensor, up: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor: ...
    def of_inner(self, gradient: torch.Tensor, up: torch.Tensor) -> torch.Tensor: ...
    def of_up(self, gradient: torch.Tensor, inner: torch.Tensor) -> torch.Tensor: ...
    def of_down(self, gradient: torch.Tensor, x: torch.Tensor) -> torch.Tensor: ...
    def of_x(self, gradient: torch.Tensor, down: torch.Tensor, out: torch.Tensor) -> None: ...


class Rows:
    """Features last, as linear layers have them: (batch, ..., features)."""

    @staticmethod
    def view(x: torch.Tensor, run: Run) -> torch.Tensor:
        return x[run.start : run.stop].reshape(run.count, -1, x.shape[-1])

    @staticmethod
    def spread(stacked: torch.Tensor, run: Run) -> torch.Tensor:
        assert len(stacked) == run.count
        return stacked

    @staticmethod
    def unstack(gradient: torch.Tensor, run: Run) -> torch.Tensor:
        assert len(gradient) == run.count
        return gradient

    @staticmethod
    def down(x: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        return torch.bmm(x, down.transpose(1, 2))

    @staticmethod
    def up(y: torch.Tensor, inner: torch.Tensor, up: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
        return torch.baddbmm(y, inner, up.transpose(1, 2), out=out)

    @staticmethod
    def of_inner(gradient: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return torch.bmm(gradient, up)

    @staticmethod
    def of_up(gradient: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
        return torch.bmm(gradient.transpose(1, 2), inner)

    @staticmethod
    def of_down(gradient: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.bmm(gradient.transpose(1, 2), x)

    @staticmethod
    def of_x(gradient: torch.Tensor, down: torch.Tensor, out: torch.Tensor) -> None:
        torch.bmm(gradient, down, out=out)


class Pixels:
    """Features second, as 1x1 convolutions have them: (batch, features, height, width). An adapter with several images
    stands in the stack once for each."""

    @staticmethod
    def view(x: torch.Tensor, run: Run) -> torch.Tensor:
        return x[run.start : run.stop].flatten(2)

    @staticmethod
    def spread(stacked: torch.Tensor, run: Run) -> torch.Tensor:
        return stacked if run.images == 1 else stacked.repeat_interleave(run.images, 0)

    @staticmethod
    def unstack(gradient: torch.Tensor, run: Run) -> torch.Tensor:
        return gradient.unflatten(0, (run.count, -1)).sum(1) if len(gradient) > run.count else gradient

    @staticmethod
    def down(x: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        return torch.bmm(down, x)

    @staticmethod
    def up(y: torch.Tensor, inner: torch.Tensor, up: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
        return torch.baddbmm(y, up, inner, out=out)

    @staticmethod
    def of_inner(gradient: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return torch.bmm(up.transpose(1, 2), gradient)

    @staticmethod
    def of_up(gradient: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
        return torch.bmm(gradient, inner.transpose(1, 2))

    @staticmethod
    def of_down(gradient: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.bmm(gradient, x.transpose(1, 2))

    @staticmethod
    def of_x(gradient: torch.Tensor, down: torch.Tensor, out: torch.Tensor) -> None:
        torch.bmm(down.transpose(1, 2), gradient, out=out)


def updated(
    plain: torch.Tensor,
    x: torch.Tensor,
    runs: Sequence[Run],
    weights: Sequence[torch.Tensor],
    form: type[Rows | Pixels],
) -> torch.Tensor:
    """`plain`, the frozen layer's output for `x`, with each run's updates; rows of no run are as they were.

    `weights` are each adapter's A and B, run by run: first all A of a run, then all B.
    """
    result: torch.Tensor = _Updated.apply(plain, x, tuple(runs), form, *weights)
    return result


class _Updated(torch.autograd.Function):
    """Written out by hand: as a graph of torch's operations it would be some ten nodes a run and layer."""

    @staticmethod
    def forward(
        ctx: Any,
        plain: torch.Tensor,
        x: torch.Tensor,
        runs: tuple[Run, ...],
        form: type[Rows | Pixels],
        *weights: torch.Tensor,
    ) -> torch.Tensor:
        with _as_given(x.device.type):
            covers = runs[0].start == 0 and runs[-1].stop == len(x) and len(runs) == 1
            out = None if covers else plain.clone(memory_format=torch.contiguous_format)
            kept: list[torch.Tensor] = []
            for run, downs, ups in _matrices(runs, weights):
                down = form.spread(_stacked(downs, run, 0).to(x.dtype), run)
                up = form.spread(_stacked(ups, run, 1).to(x.dtype), run)
                inner = form.down(form.view(x, run), down).mul_(form.spread(run.scales, run))
                kept += [inner, down, up]
                if out is None:
                    result = form.up(form.view(plain, run), inner, up, None).view_as(plain)
                else:
                    part = form.view(out, run)
                    form.up(part, inner, up, part)
        ctx.runs, ctx.form = runs, form
        ctx.save_for_backward(x, *kept, *weights)
        return result if out is None else out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        runs, form = ctx.runs, ctx.form
        x, *rest = ctx.saved_tensors  # read once: activations that are computed twice can be had no second time
        kept, weights = rest[: 3 * len(runs)], rest[3 * len(runs) :]
        gradient = gradient.contiguous()
        of_x = _room_for(x, runs) if ctx.needs_input_grad[1] else None
        of_weights: list[torch.Tensor] = []
        for place, (run, downs, ups) in enumerate(_matrices(runs, weights)):
            inner, down, up = kept[3 * place : 3 * place + 3]
            of_run = form.view(gradient, run)
            of_inner = form.of_inner(of_run, up).mul_(form.spread(run.scales, run))
            of_down = form.unstack(form.of_down(of_inner, form.view(x, run)), run)
            of_up = form.unstack(form.of_up(of_run, inner), run)
            of_weights += [part[: len(own)].view_as(own).to(own.dtype) for part, own in _pairs(of_down, downs)]
            of_weights += [part[:, : own.shape[1]].reshape(own.shape).to(own.dtype) for part, own in _pairs(of_up, ups)]
            if of_x is not None:
                form.of_x(of_inner, down, form.view(of_x, run))
        return gradient, of_x, None, None, *of_weights


def _pairs(stacked: torch.Tensor, weights: Sequence[torch.Tensor]) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    return zip(stacked, weights, strict=True)


def _stacked(weights: Sequence[torch.Tensor], run: Run, axis: int) -> torch.Tensor:
    """Matrices of a run, (count, rank, inputs) or (count, outputs, rank) by the `axis` that is the rank, zeros behind
    those of smaller ranks."""
    flat = [weight.flatten(1) for weight in weights]
    if run.count == 1:
        return flat[0][None]
    if len(set(run.ranks)) == 1:
        return torch.stack(flat)
    shape = list(flat[0].shape)
    shape[axis] = max(run.ranks)
    room = flat[0].new_zeros((run.count, *shape))
    for place, weight in zip(room, flat, strict=True):
        place.narrow(axis, 0, weight.shape[axis]).copy_(weight)
    return room


def _room_for(x: torch.Tensor, runs: Sequence[Run]) -> torch.Tensor:
    """For the gradient of `x`; rows of no run get none from here."""
    make = torch.empty if sum(run.stop - run.start for run in runs) == len(x) else torch.zeros
    return make(x.shape, dtype=x.dtype, device=x.device)


def _as_given(device: str) -> AbstractContextManager[object]:
    """Products in the arithmetic of what is multiplied, which is the layer's own already."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _matrices(runs: Sequence[Run], weights: Sequence[torch.Tensor]) -> Any:
    """Each run with its A and its B."""
    start = 0
    for run in runs:
        middle, stop = start + run.count, start + 2 * run.count
        yield run, weights[start:middle], weights[middle:stop]
        start = stop
