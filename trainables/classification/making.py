"""What one trial is made of: its rows as tensors, its splits, a network with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainables.classification import backbones, export, inputs
from trainables.classification.data import Examples
from trainables.classification.fit import Fit, Groups, seed_of
from trainables.classification.network import IMAGE, Network, Shape
from trainables.classification.settings import ANY, Chosen, weights_of
from trainables.classification.split import Split, fold_splits, one_split
from trainables.protocol import TrialContext

if TYPE_CHECKING:
    from trainables.classifier import Classifier


class Making:
    """Makes the trainings of a trial."""

    def __init__(self, trainer: Classifier, settings: Chosen, examples: Examples, context: TrialContext) -> None:
        self._trainer, self._settings, self._context = trainer, settings, context
        count = settings["data.n_classes"]
        self._examples = examples.largest_classes(None if count is None else int(count))
        self._rows = inputs.encoded(self._examples, settings, context.shared)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._recipes: dict[int, inputs.Recipe] = {}

    @cached_property
    def splits(self) -> list[Split]:
        """One, or one a fold: the same for every trial of a study."""
        trainer, source = self._trainer, self._trainer.source
        if trainer.folds is None:
            return [one_split(self._examples, source.held_out_share, grouped=source.grouped_folds)]
        watches = self._settings["training.early_stopping"] or self._settings["scheduler.type"] == "plateau"
        inner = source.held_out_share if watches else None
        return fold_splits(self._examples, trainer.folds, grouped=source.grouped_folds, inner_share=inner)

    def fit(self, fold: int) -> Fit:
        """The training of a fold (0-based) from the beginning."""
        split = self.splits[fold]
        seed = f"{self._context.seed}:{fold}" if self._trainer.folds is not None else str(self._context.seed)
        recipe = inputs.recipe(self._rows, split.train, self._settings, self._normalisation)
        self._recipes[fold] = recipe
        groups = self._examples.groups
        return Fit(
            self._network(seed),
            inputs.Inputs(self._rows, self._examples.labels, recipe, self._device),
            split,
            self._settings,
            seed=seed,
            device=self._device,
            groups=None if groups is None else Groups.of(groups),
            watched=self._trainer.objective,
        )

    @property
    def _normalisation(self) -> str:
        asked = self._trainer.normalisation
        if asked != "auto":
            return asked
        return "rows" if weights_of(self._trainer.weights, self._settings["model.architecture"]) is None else "imagenet"

    def _network(self, seed: str) -> Network:
        examples = self._examples
        torch.manual_seed(seed_of(seed, "weights"))
        network = Network(Shape(examples.kind, len(examples.classes), len(examples.names)), self._settings)
        path = weights_of(self._trainer.weights, self._settings["model.architecture"])
        if path is not None and IMAGE in network.encoders:
            architecture = self._settings["model.architecture"]
            backbones.fill(network.encoders[IMAGE], backbones.load_state(Path(path)), architecture, path)
        return network.to(memory_format=torch.channels_last).to(self._device)

    def export(self, fit: Fit, metrics: Mapping[str, float]) -> None:
        """Writes the trained model into the trial's folder."""
        recipe = self._recipes[max(self._recipes)]
        export.write(self._context.folder, fit.network, self._settings, recipe, self._examples, metrics)


def loaded_weights(weights: Mapping[str, str], settings: Chosen) -> list[str]:
    """Loads each file into its architecture; one sentence each on what was loaded.

    Raises:
        InputError: a file cannot be read, or does not fit.
    """
    said = []
    for named, path in weights.items():
        architecture = settings["model.architecture"] if named == ANY else named
        backbone, _ = backbones.build(architecture, settings["model.widths"])
        said.append(backbones.fill(backbone, backbones.load_state(Path(path)), architecture, path))
    return said
