"""A frozen layer with the updates of several adapters, each for its own rows of the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from trainables.lora.grouped import Pixels, Rows, Run, updated
from trainables.lora.layers import LoraConv2d, LoraLayer, LoraLinear
from trainables.lora.randomness import Randomness
from tune_lora.errors import InputError

SMALL_RANK = 32
"""Up to here a product takes as long to begin as to compute."""
MOST_PADDED = 1.5
"""Ranks that a run computes, for each that it has."""


class Share(NamedTuple):
    """A slot, and how many rows of the batch are its own; where they are padded behind, their own `length`."""

    slot: int
    rows: int
    length: int | None = None


Shares = Callable[[], tuple[Share, ...]]


class Routing:
    """Whose rows the batch of a model consists of, told before it is called. Unless it is told, no adapter speaks: the
    model is the frozen base.

    `randomness` is by slot what dropout draws from, so that each slot meets the masks that it would meet alone.
    """

    def __init__(self) -> None:
        self._shares: dict[nn.Module, tuple[Share, ...]] = {}
        self.randomness: dict[int, Randomness] = {}

    def tell(self, models: Iterable[nn.Module], shares: Sequence[Share]) -> None:
        """The batch of these models consists of these shares, one behind the other. It holds until `silence`: a
        backward pass that computes activations again must find the same."""
        for model in models:
            self._shares[model] = tuple(Share(*share) for share in shares)

    def silence(self) -> None:
        """No adapter speaks."""
        self._shares.clear()

    def shares(self, model: nn.Module) -> tuple[Share, ...]:
        """What was told of a model."""
        return self._shares.get(model, ())

    def chance(self, slot: int) -> AbstractContextManager[None]:
        """What is drawn meanwhile is the slot's."""
        found = self.randomness.get(slot)
        return nullcontext() if found is None else found.in_place()


@dataclass(frozen=True)
class _Part:
    """Neighbouring rows that are computed in one way: `runs` with others, or `member` by itself; neither: as they are.

    `start` and `stop` are rows, `length` is what of a member's rows is not padding."""

    start: int
    stop: int
    runs: tuple[Run, ...] = ()
    weights: tuple[nn.Parameter, ...] = ()
    member: LoraLayer | None = None
    slot: int = 0
    length: int | None = None


class PackedLayer(nn.Module):
    """Computes the frozen layer once for all rows, and each adapter's update for the rows of its slot. A slot without
    an adapter on this layer gets the frozen layer's output. `shares` says whose the rows are."""

    def __init__(self, base_layer: nn.Module, name: str, shares: Shares, routing: Routing) -> None:
        super().__init__()
        self.base_layer, self.name, self._shares, self._routing = base_layer, name, shares, routing
        # Not as modules of this one: models walk through all of theirs at every call, and there would be thousands.
        self._members: dict[int, LoraLayer] = {}
        self._plans: dict[object, list[_Part]] = {}

    def add(self, slot: int, layer: LoraLayer) -> None:
        """Takes in a slot's layer."""
        self._members[slot] = layer
        self._plans.clear()

    def remove(self, slot: int) -> None:
        """Lets go of a slot's layer."""
        del self._members[slot]
        self._plans.clear()

    def train(self, mode: bool = True) -> PackedLayer:
        """Sets the mode of the adapters' layers, too."""
        super().train(mode)
        for layer in self._members.values():
            layer.train(mode)
        return self

    def member(self, slot: int) -> LoraLayer | None:
        """A slot's layer."""
        return self._members.get(slot)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is left."""
        return not self._members

    @property
    def weight(self) -> torch.Tensor:
        """The frozen layer's, for models that ask a layer for its kind of numbers."""
        weight: torch.Tensor = self.base_layer.weight  # type: ignore[assignment]  # torch types attributes as tensor or module
        return weight

    @property
    def bias(self) -> torch.Tensor | None:
        """The frozen layer's."""
        return getattr(self.base_layer, "bias", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plain: torch.Tensor = self.base_layer(x)
        parts = self._plan(plain, len(x))
        if not any(part.runs or part.member for part in parts):
            return plain
        if len(parts) == 1:
            return self._of(parts[0], plain, x)
        cut = [(part, plain[part.start : part.stop], x[part.start : part.stop]) for part in parts]
        return torch.cat([self._of(*one) for one in cut])

    def _of(self, part: _Part, plain: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if part.member is not None:
            with self._routing.chance(part.slot):
                return _adjusted(part.member, plain, x, part.length)
        if not part.runs:
            return plain
        x = x.to(plain.dtype)  # what autocast would do to each product
        if isinstance(self.base_layer, nn.Conv2d):
            if not plain.is_contiguous() and plain.is_contiguous(memory_format=torch.channels_last):
                turned = updated(plain.movedim(1, -1), x.movedim(1, -1), part.runs, part.weights, Rows)
                return turned.movedim(-1, 1)
            return updated(plain, x, part.runs, part.weights, Pixels)
        return updated(plain, x, part.runs, part.weights, Rows)

    def _plan(self, plain: torch.Tensor, rows: int) -> list[_Part]:
        shares = self._shares()
        if not shares:
            return []
        key = (shares, plain.dtype, plain.device, self.training)
        if (found := self._plans.get(key)) is None:
            told = sum(share.rows for share in shares)
            if told != rows:
                raise InputError(
                    f"layer {self.name}: got {rows} rows, must be {told}, those of the batch; a model that mixes rows"
                    " cannot serve several trials at once"
                )
            found = self._plans[key] = list(self._parts(shares, plain))
        return found

    def _parts(self, shares: Sequence[Share], like: torch.Tensor) -> Iterator[_Part]:
        """The rows cut into parts: layers that go together in one, each other layer in one of its own."""
        start, waiting = 0, list[tuple[int, int, LoraLayer | None]]()
        for slot, count, length in shares:
            layer, stop = self._members.get(slot), start + count
            if layer is None or _goes_together(layer):
                waiting.append((start, stop, layer))
            else:
                if waiting:
                    yield _together(waiting, like)
                    waiting = []
                yield _Part(start, stop, member=layer, slot=slot, length=length)
            start = stop
        if waiting:
            yield _together(waiting, like)


def _adjusted(layer: LoraLayer, plain: torch.Tensor, x: torch.Tensor, length: int | None) -> torch.Tensor:
    """A layer's output of its own; padding, which nobody looks at, must draw no masks that it would not draw alone."""
    if length is None or x.ndim < 3 or length == x.shape[1]:
        return layer.adjusted(plain, x)
    return torch.cat([layer.adjusted(plain[:, :length], x[:, :length]), plain[:, length:]], 1)


def _goes_together(layer: LoraLayer) -> bool:
    """Whether a layer is nothing but two products, which batched ones can be in place of. The masks of dropout are
    drawn one adapter after another, DoRA's lengths and large convolutions have no batched product."""
    if layer.lora_magnitude_vector is not None or (layer.dropout and layer.training):
        return False
    if isinstance(layer, LoraConv2d):
        base = layer.base_layer
        return base.kernel_size == (1, 1) and base.stride == (1, 1) and base.padding in ((0, 0), 0)
    return isinstance(layer, LoraLinear)


def _together(cut: Sequence[tuple[int, int, LoraLayer | None]], like: torch.Tensor) -> _Part:
    """One part of neighbouring rows; those that stand together become a run where they are `_alike`."""
    first = cut[0][0]
    grouped: list[list[tuple[int, int, LoraLayer]]] = []
    for start, stop, layer in cut:
        if layer is None:
            continue
        last = grouped[-1][-1] if grouped else None
        one = (start - first, stop - first, layer)
        if last is not None and last[1] == one[0] and last[1] - last[0] == stop - start and _alike(grouped[-1], layer):
            grouped[-1].append(one)
        else:
            grouped.append([one])
    runs, weights = [], list[nn.Parameter]()
    for members in grouped:
        layers = [layer for _, _, layer in members]
        scales = torch.tensor([layer.scale for layer in layers], dtype=like.dtype, device=like.device)
        ranks = tuple(layer.rank for layer in layers)
        runs.append(Run(members[0][0], members[-1][1], ranks, scales.view(-1, 1, 1)))
        weights += [layer.lora_A.weight for layer in layers]  # type: ignore[misc]  # torch types attributes as tensor or module
        weights += [layer.lora_B.weight for layer in layers]  # type: ignore[misc]
    return _Part(first, cut[-1][1], tuple(runs), tuple(weights))


def _alike(members: Sequence[tuple[int, int, LoraLayer]], layer: LoraLayer) -> bool:
    """Whether a layer joins a run, all ranks of which are padded to the largest."""
    ranks = [*(one.rank for _, _, one in members), layer.rank]
    most = max(ranks)
    return most <= SMALL_RANK or most * len(ranks) <= MOST_PADDED * sum(ranks)
