"""Where the layers of an adapter stand in a frozen model."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from trainables.lora.layers import LoraLayer
from trainables.lora.packed_layers import PackedLayer


class Seats(Protocol):
    """Puts LoRA layers into a model and takes them out. `slot` is their adapter's number among those that share."""

    @property
    def slot(self) -> int: ...

    def require_free(self, part: str, model: nn.Module) -> None:
        """Raises ValueError where a model has no room for another adapter."""
        ...

    def put(self, model: nn.Module, name: str, layer: LoraLayer) -> None:
        """Puts a layer in the place of the frozen layer of that name."""
        ...

    def take(self, model: nn.Module, name: str) -> None:
        """Takes the layer in that place out; nothing of it is left in the model."""
        ...

    def is_free(self, model: nn.Module) -> bool:
        """Whether no adapter is left in a model."""
        ...


class OwnSeats:
    """A model with one adapter: its layers stand in the frozen layers' places."""

    slot = 0

    def require_free(self, part: str, model: nn.Module) -> None:
        """Raises ValueError where there is an adapter already."""
        if any(isinstance(module, LoraLayer | PackedLayer) for module in model.modules()):
            raise ValueError(f"{part} has an adapter already; detach it first")

    def put(self, model: nn.Module, name: str, layer: LoraLayer) -> None:
        """Puts a layer in."""
        place(model, name, layer)

    def take(self, model: nn.Module, name: str) -> None:
        """Puts the frozen layer back."""
        place(model, name, model.get_submodule(f"{name}.base_layer"))

    def is_free(self, model: nn.Module) -> bool:
        """Whether there is none; the one that asks has left."""
        return not any(isinstance(module, LoraLayer) for module in model.modules())


def place(model: nn.Module, name: str, module: nn.Module) -> None:
    """Makes `module` the submodule of that name."""
    parent, _, child = name.rpartition(".")
    holder = model.get_submodule(parent)
    if isinstance(holder, nn.ModuleList | nn.Sequential):
        holder[int(child)] = module
    else:
        setattr(holder, child, module)
