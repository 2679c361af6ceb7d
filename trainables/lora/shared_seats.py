"""The places in frozen models that several adapters share."""

from __future__ import annotations

import functools
from collections.abc import Generator
from contextlib import contextmanager

from torch import nn

from trainables.lora.layers import LoraLayer
from trainables.lora.packed_layers import PackedLayer, Routing
from trainables.lora.seats import place


class Bench:
    """All places of a pack: where one slot at least has a layer, a `PackedLayer` stands."""

    def __init__(self, routing: Routing) -> None:
        self.routing = routing
        self._layers: dict[tuple[nn.Module, str], PackedLayer] = {}

    def seats(self, slot: int) -> SlotSeats:
        """Where the adapter of a slot is put."""
        return SlotSeats(self, slot)

    def add(self, model: nn.Module, name: str, slot: int, layer: LoraLayer) -> None:
        """Takes in a slot's layer; makes the place where nobody was yet."""
        packed = self._layers.get((model, name))
        if packed is None:
            shares = functools.partial(self.routing.shares, model)
            packed = PackedLayer(layer.base_layer, name, shares, self.routing)
            packed.train(model.training)
            self._layers[model, name] = packed
            place(model, name, packed)
        packed.add(slot, layer)

    def remove(self, model: nn.Module, name: str, slot: int) -> None:
        """Lets go of a slot's layer; the last one leaves the frozen layer where it was."""
        packed = self._layers[model, name]
        packed.remove(slot)
        if packed.is_empty:
            place(model, name, packed.base_layer)
            del self._layers[model, name]

    def is_free(self, model: nn.Module) -> bool:
        """Whether no slot has a layer in this model."""
        return not any(other is model for other, _ in self._layers)

    @contextmanager
    def alone(self, slot: int) -> Generator[None, None, None]:
        """The models have the slot's adapter and no other, as if it had trained by itself; for measuring, generating
        and exporting."""
        for (model, name), packed in self._layers.items():
            place(model, name, packed.member(slot) or packed.base_layer)
        try:
            yield
        finally:
            for (model, name), packed in self._layers.items():
                place(model, name, packed)


class SlotSeats:
    """The seats of one slot's adapter among those of others."""

    def __init__(self, bench: Bench, slot: int) -> None:
        self._bench, self.slot = bench, slot

    def require_free(self, part: str, model: nn.Module) -> None:
        """Raises ValueError where the model has an adapter that shares with nobody."""
        if any(isinstance(module, LoraLayer) for module in _outside_of_packed(model)):
            raise ValueError(f"{part} has an adapter of its own; detach it first")

    def put(self, model: nn.Module, name: str, layer: LoraLayer) -> None:
        """Puts a layer beside those of the others."""
        self._bench.add(model, name, self.slot, layer)

    def take(self, model: nn.Module, name: str) -> None:
        """Takes it out again."""
        self._bench.remove(model, name, self.slot)

    def is_free(self, model: nn.Module) -> bool:
        """Whether nobody sits in the model."""
        return self._bench.is_free(model)


def _outside_of_packed(module: nn.Module) -> Generator[nn.Module, None, None]:
    yield module
    if not isinstance(module, PackedLayer):
        for child in module.children():
            yield from _outside_of_packed(child)
