"""From examples to what a network takes: how each modality is encoded, fitted on training rows only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trainables.classification import pixels, text_encoders
from trainables.classification.data import Examples
from trainables.classification.network import IMAGE, TABLE, TEXT
from trainables.classification.settings import Chosen
from trainables.tables.scaler import Scaler


@dataclass(frozen=True)
class Recipe:
    """All that turns rows into tensors, so that a finished model reads new rows as it read those of its training.

    `mean` and `deviation` are of the images' channels (0..1), `scaler` of a table's columns.
    """

    image_size: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    text_encoder: str
    text_length: int
    scaler: Scaler | None = None

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        scaler = None if self.scaler is None else self.scaler.as_dict()
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"scaler": scaler}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Recipe:
        """What `as_dict` wrote, read from JSON."""
        scaler = None if told["scaler"] is None else Scaler.from_dict(told["scaler"])
        parts = {name: tuple(told[name]) for name in ("mean", "deviation")}
        return cls(**{**told, **parts, "scaler": scaler})


def encoded(examples: Examples, settings: Chosen, shared: dict[str, Any]) -> dict[str, torch.Tensor]:
    """All rows by modality: images uint8, ids of texts, raw features; images are decoded once a worker."""
    found: dict[str, torch.Tensor] = {}
    if examples.images is not None:
        found[IMAGE] = pixels.decoded(examples.images, int(settings["data.image_size"]), shared)
    if examples.texts is not None:
        length = int(settings["model.text_length"])
        found[TEXT] = text_encoders.ids_of(settings["model.text_encoder"], examples.texts, length)
    if examples.features is not None:
        found[TABLE] = torch.from_numpy(examples.features)
    return found


def recipe(rows: Mapping[str, torch.Tensor], train: np.ndarray, settings: Chosen, normalisation: str) -> Recipe:
    """Fitted on the rows `train`, and on no others. `normalisation` of images is ``rows`` or ``imagenet``."""
    mean, deviation = pixels.IMAGENET
    if IMAGE in rows and normalisation == "rows":
        mean, deviation = pixels.statistics(rows[IMAGE][torch.from_numpy(train)])  # type: ignore[assignment]  # 3 channels
    return Recipe(
        image_size=int(settings["data.image_size"]),
        mean=mean,
        deviation=deviation,
        text_encoder=settings["model.text_encoder"],
        text_length=int(settings["model.text_length"]),
        scaler=Scaler.fit(rows[TABLE].numpy()[train]) if TABLE in rows else None,
    )


class Inputs:
    """Rows as tensors on the device, batch by batch; what is random in a training batch comes from its generator."""

    def __init__(
        self, rows: Mapping[str, torch.Tensor], labels: np.ndarray, recipe: Recipe, device: torch.device
    ) -> None:
        self._rows = dict(rows)
        self._recipe, self._device = recipe, device
        self.labels = torch.from_numpy(labels)
        if TABLE in rows and recipe.scaler is not None:
            self._rows[TABLE] = torch.from_numpy(recipe.scaler.transform(rows[TABLE].numpy()))

    def batch(
        self, index: torch.Tensor, chance: torch.Generator | None = None, *, flip: bool = False, crop: bool = False
    ) -> dict[str, torch.Tensor]:
        """The rows `index` by modality; images are augmented where there is a generator."""
        found = {name: values[index] for name, values in self._rows.items()}
        if IMAGE in found:
            images = found.pop(IMAGE)
            if chance is not None:
                images = pixels.augmented(images, chance, flip=flip, crop=crop)
            found[IMAGE] = pixels.normalised(images, self._recipe.mean, self._recipe.deviation, self._device)
        return {name: values.to(self._device) for name, values in found.items()}
