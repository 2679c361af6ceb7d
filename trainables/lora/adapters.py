"""A LoRA adapter over frozen models: put in, read out, restored and taken away without a trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from trainables.lora.layers import LoraLayer, lora_layer
from trainables.lora.seats import OwnSeats, Seats
from trainables.lora.targets import Targets, frozen_modules
from tune_lora.errors import InputError, nearest

_LENGTHS = "lora_magnitude_vector"


@dataclass(frozen=True)
class LoraShape:
    """Size and kind of an adapter. Alpha over rank is the scale (rsLoRA: over its square root).

    `conv_rank` above 0 adapts convolutions too, those larger than 1x1 with this rank. `ranks` gives other ranks to
    layers whose name begins so (``down_blocks.1``; the longest match wins, 0 leaves them out); there `conv_rank`
    changes in the same proportion, and alpha keeps its own to the rank.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    conv_rank: int = 0
    conv_alpha: float = 0.0
    dora: bool = False
    rslora: bool = False
    ranks: Mapping[str, int] = field(default_factory=dict)

    def size_of(self, name: str, module: nn.Module) -> tuple[int, float]:
        """Rank and alpha of one layer; a rank of 0 means none."""
        is_large = isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)
        rank, alpha = (self.conv_rank, self.conv_alpha or self.alpha) if is_large else (self.rank, self.alpha)
        fitting = [prefix for prefix in self.ranks if name == prefix or name.startswith(f"{prefix}.")]
        if not fitting or not rank:
            return rank, alpha
        share = self.ranks[max(fitting, key=len)] / self.rank
        chosen = max(1, round(rank * share)) if share else 0
        return chosen, alpha * chosen / rank


@dataclass(frozen=True)
class Part:
    """One frozen model of an adapter: its name (``unet``, ``text_encoder``, ``model``), learning rate and targets."""

    name: str
    model: nn.Module
    rate: float
    shape: LoraShape
    targets: Targets


class Adapter:
    """One trial's LoRA, over one or more frozen models.

    `loraplus_ratio` multiplies the learning rate of the B matrices (LoRA+: Hayou et al. 2024, arXiv 2402.12354).
    `seats` are where its layers stand: the models' own, unless several adapters share them.
    """

    def __init__(self, parts: Sequence[Part], *, loraplus_ratio: float = 1.0, seats: Seats | None = None) -> None:
        self.parts, self.loraplus_ratio = tuple(parts), loraplus_ratio
        self._seats = seats or OwnSeats()
        self._layers: dict[str, dict[str, LoraLayer]] = {part.name: {} for part in parts}

    def attach(self, seed: int) -> Adapter:
        """Puts the layers in: A random by `seed`, B zero, so that the models start as they were.

        Whatever fails on the way, such as memory, the models are left clean.

        Raises:
            InputError: no layer of a model is meant.
            ValueError: a model has an adapter already.
        """
        generator = torch.Generator().manual_seed(seed)
        try:
            for part in self.parts:
                self._attach(part, generator)
        except BaseException:
            self.detach()
            raise
        return self

    def _attach(self, part: Part, generator: torch.Generator) -> None:
        self._seats.require_free(part.name, part.model)
        shape, found = part.shape, self._layers[part.name]
        for name, module in list(part.targets.layers(part.model, convolutions=shape.conv_rank > 0)):
            rank, alpha = shape.size_of(name, module)
            if not rank:
                continue
            layer = lora_layer(
                module, rank, alpha, dropout=shape.dropout, dora=shape.dora, rslora=shape.rslora
            )  # fmt: skip
            layer.reset(generator)
            layer.train(part.model.training)
            self._seats.put(part.model, name, layer)
            found[name] = layer
        if not found:
            kind = type(part.model).__name__
            raise InputError(
                f"{part.name} ({kind}) has no layer that an adapter could be put on; must have one at least"
            )

    def detach(self) -> None:
        """Takes the layers away; the models are what they were."""
        for part in self.parts:
            for name in self._layers[part.name]:
                self._seats.take(part.model, name)
            self._layers[part.name] = {}

    def layers(self) -> Mapping[str, Mapping[str, LoraLayer]]:
        """The attached layers, by part and by the name of the layer that they stand for."""
        return self._layers

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for part, layers in self._layers.items():
            for name, layer in layers.items():
                for own, parameter in layer.named_parameters():
                    if own.startswith("lora_"):
                        yield f"{part}.{name}.{own}", parameter

    def parameters(self) -> list[nn.Parameter]:
        """The trained tensors, part by part in the models' order."""
        return [parameter for _, parameter in self._named()]

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups with their learning rates ``lr``: one a part, one more where B has a rate of its own, and
        one for DoRA's lengths, which do not decay."""
        groups: list[dict[str, Any]] = []
        for part in self.parts:
            rest: dict[str, Any] = {"params": [], "lr": part.rate}
            ups: dict[str, Any] = {"params": [], "lr": part.rate * self.loraplus_ratio}
            # Decay would shrink what the base has learnt.
            lengths: dict[str, Any] = {"params": [], "lr": part.rate, "weight_decay": 0.0}
            for name, value in self._named():
                if not name.startswith(f"{part.name}."):
                    continue
                is_up = ".lora_B." in name and self.loraplus_ratio != 1
                group = lengths if name.endswith(_LENGTHS) else ups if is_up else rest
                group["params"].append(value)
            groups += [group for group in (rest, ups, lengths) if group["params"]]
        return groups

    def largest(self) -> float:
        """Largest absolute value among the trained tensors."""
        return max(float(parameter.detach().abs().max()) for parameter in self.parameters())

    def state(self) -> dict[str, torch.Tensor]:
        """Copies of the trained tensors on the CPU, as ``<part>.<layer>.lora_A.weight`` and so on."""
        return {name: value.detach().cpu().clone() for name, value in self._named()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Loads what `state` gave.

        Raises:
            ValueError: the tensors belong to another adapter.
        """
        named = dict(self._named())
        wrong = sorted(set(named) ^ set(state)) or [
            name for name, value in named.items() if value.shape != state[name].shape
        ]
        if wrong:
            raise ValueError(f"checkpoint does not fit the adapter, first at {wrong[0]}")
        for name, value in named.items():
            value.copy_(state[name])


def require_layers(ranks: Mapping[str, int], models: Iterable[nn.Module]) -> None:
    """Looks whether ranks by prefix speak of layers that one of a base's models has, adapted or not.

    Raises:
        InputError: the first that does not.
    """
    names = {name for model in models for name, _ in frozen_modules(model)}
    for prefix in sorted(set(ranks) - names):
        known = {name for name in names if name and name.count(".") == prefix.count(".")}
        raise InputError(f"rank of {prefix!r}: no layer's name begins so; {nearest(prefix, known)}")
