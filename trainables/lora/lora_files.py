"""LoRA files, whoever made them: what one holds, and how it is put onto a base.

All are put onto our own layers, so that every option works the same whichever layout it came in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainables.lora.adapters import Adapter, LoraShape, Part
from trainables.lora.layers import can_be_adapted
from trainables.lora.lora_tensors import LoraFile, LoraPair, read_lora
from trainables.lora.module_names import TEXT, TEXT_2, UNET, aliases, flat
from trainables.lora.targets import Targets
from tune_lora.errors import InputError


def load_lora(pipeline: Any, path: Path, *, rate: float = 0.0) -> Adapter:
    """Puts the LoRA of a ``.safetensors`` file onto a pipeline; the adapter's `detach` takes it off again.

    `rate` is the learning rate of each part, for whoever trains on.

    Raises:
        InputError: the file is not a LoRA that is read here, is damaged, or was made for another base; the pipeline is
            then untouched.
    """
    models = {name: model for name in (UNET, TEXT, TEXT_2) if (model := getattr(pipeline, name, None)) is not None}
    return adapter_of_file(read_lora(path), models, rate=rate)


def adapter_of_file(file: LoraFile, models: Mapping[str, nn.Module], *, rate: float = 0.0) -> Adapter:
    """The adapter that a file holds, attached to `models` (by ``unet``, ``text_encoder``, ``text_encoder_2``).

    Raises:
        InputError: it does not fit them, which are then untouched.
    """
    places, misfits = _places(file, models)
    if misfits:
        count = f"{len(misfits)} of {len(file.pairs)} modules"
        raise InputError(f"{file.path}: {count} do not fit this base; {misfits[0]}{_said_base(file)}")
    parts = [
        _part(file, part, model, {place.name: place for place in places if place.part == part}, rate)
        for part, model in models.items()
        if any(place.part == part for place in places)
    ]
    adapter = Adapter(parts).attach(0)
    adapter.restore({f"{place.part}.{place.name}.{name}": value for place in places for name, value in place.state()})
    return adapter


def _said_base(file: LoraFile) -> str:
    facts = file.facts()
    names = [str(facts[name]) for name in ("base", "base_version") if name in facts]
    return f"; it was made for {', '.join(names)}" if names else ""


@dataclass(frozen=True)
class _Place:
    """A pair of the file and the module that it is for."""

    part: str
    name: str
    module: nn.Module
    pair: LoraPair

    def misfit(self) -> str:
        outputs, inputs = self.module.weight.shape[:2]  # type: ignore[index]  # a layer's weight
        got = (self.pair.inputs, self.pair.outputs)
        if got != (inputs, outputs):
            return (
                f"{self.part} {self.name} goes from {got[0]} to {got[1]} in the file, "
                f"and from {inputs} to {outputs} in the base"
            )
        kernel = tuple(getattr(self.module, "kernel_size", (1, 1)))
        if self.pair.kernel != kernel:
            return f"{self.part} {self.name} has the kernel {self.pair.kernel} in the file, and {kernel} in the base"
        return ""

    def state(self) -> Iterator[tuple[str, torch.Tensor]]:
        """What the layer's parameters become, in its own shapes: files have 1x1 convolutions as matrices, and matrices
        as 1x1 convolutions."""
        is_large = isinstance(self.module, nn.Conv2d)
        rank, kernel = self.pair.rank, self.pair.kernel if is_large else ()
        yield "lora_A.weight", self.pair.down.reshape(rank, self.pair.inputs, *kernel)
        yield "lora_B.weight", self.pair.up.reshape(self.pair.outputs, rank, *((1, 1) if is_large else ()))
        if self.pair.lengths is not None:
            yield "lora_magnitude_vector", self.pair.lengths


def _places(file: LoraFile, models: Mapping[str, nn.Module]) -> tuple[list[_Place], list[str]]:
    """Where each pair belongs, and one line for each that belongs nowhere."""
    index = {
        alias: (part, name, module)
        for part, model in models.items()
        for name, module in model.named_modules()
        if can_be_adapted(module)
        for alias in aliases(part, name, model)
    }
    places, misfits = [], []
    for pair in file.pairs:
        found = index.get(flat(pair.stem).replace("_processor_", "_"))
        if found is None:
            misfits.append(f"it has no {pair.stem}")
            continue
        place = _Place(*found, pair=pair)
        if misfit := place.misfit():
            misfits.append(misfit)
        places.append(place)
    return places, misfits


@dataclass(frozen=True)
class _Listed(Targets):
    """Just the layers with these names."""

    names: frozenset[str] = frozenset()

    def layers(self, model: nn.Module, *, convolutions: bool = False) -> Iterator[tuple[str, nn.Module]]:  # noqa: ARG002
        yield from ((name, module) for name, module in model.named_modules() if name in self.names)


@dataclass(frozen=True, kw_only=True)
class _Sizes(LoraShape):
    """Rank and alpha of each layer by its name."""

    sizes: Mapping[str, tuple[int, float]]

    def size_of(self, name: str, module: nn.Module) -> tuple[int, float]:  # noqa: ARG002
        return self.sizes[name]


def _part(file: LoraFile, part: str, model: nn.Module, places: Mapping[str, _Place], rate: float) -> Part:
    sizes = {name: (place.pair.rank, file.alpha(place.part, place.pair)) for name, place in places.items()}
    has_lengths = {place.pair.lengths is not None for place in places.values()}
    if len(has_lengths) > 1:
        raise InputError(f"{file.path}: only some modules of {part} have DoRA lengths; must be all of them, or none")
    rank, alpha = next(iter(sizes.values()))
    return Part(
        part, model, rate, _Sizes(rank, alpha, dora=True in has_lengths, sizes=sizes), _Listed(names=frozenset(places))
    )
