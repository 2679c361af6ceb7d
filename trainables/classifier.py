"""Classifiers of images, texts, images with texts, and tables: one training a trial, or one a fold."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables import demos
from trainables.classification import data, settings
from trainables.classification.source import DataSource
from trainables.classification.split import Folds, fold_splits, one_split
from trainables.protocol import Params, Report, TrialContext
from tune_lora.errors import InputError

if TYPE_CHECKING:
    from trainables.classification.course import Course

RULES, SAID_TWICE = settings.RULES, settings.SAID_TWICE
WORST = "worst_group_acc"
METRICS = (
    "val_acc", "val_loss", "f1_macro", WORST, "train_acc", "train_loss", "learning_rate", "seconds",
)  # fmt: skip
"""What the last report of a trial holds; `worst_group_acc` where there are modalities or a group column, which also
have ``acc_<group>`` each."""
MODALITY_METRICS = ("acc_image", "acc_text")
"""More of them for images with texts."""
FOLD_METRICS = ("fold_score",)
"""More of them where trials are judged in folds; and ``<objective>_spread`` and ``fold_<k>_<metric>``."""
MEASURED_BY_CLOCK = ("seconds",)
SPLIT_SEED = 0
_SHARED = "classification.examples"


@dataclass(frozen=True)
class Classifier:
    """The classifier trainer.

    `folds` are those that judge every trial; None holds a share out instead. `objective` is what trials are compared by
    and what early stopping watches. `weights` are state dicts of pretrained backbones, by architecture (``*``: of
    any). `normalisation` of images is ``rows`` (mean and deviation of the training rows), ``imagenet`` or ``auto``:
    ImageNet's where there are weights. `exported`: the trained model is written into the trial's folder.
    """

    source: DataSource
    folds: Folds | None = None
    objective: str = "val_acc"
    precision: str = "fp32"
    weights: Mapping[str, str] = field(default_factory=dict)
    normalisation: str = "auto"
    exported: bool = False
    trial_timeout_seconds: float | None = None
    budget_unit: str = "epoch"

    def horizon(self, params: Params) -> int:
        """Epochs of a trial, those of all folds together."""
        return settings.chosen(params).epochs * (1 if self.folds is None else self.folds.n_folds)

    def check(self, params: Params) -> list[str]:
        """What is wrong with a configuration before anything is loaded; empty when nothing is."""
        try:
            kind = data.kind_of(self.source)
        except InputError:  # what is wrong with the data is for `check_data` to say
            return settings.check(params)
        found = settings.check(params, kind) or self._of_groups(params, kind) or self._of_classes(params)
        return found or (self._of_weights(params) if kind in ("image", "image_text") else [])

    def _of_groups(self, params: Params, kind: str) -> list[str]:
        if not settings.chosen(params)["groupdro.enabled"] or self.source.group is not None or kind == "image_text":
            return []
        return [
            f"groupdro.enabled: got true, but data of kind {kind} is one modality; must be false, or data.group name a "
            "column"
        ]

    def _of_classes(self, params: Params) -> list[str]:
        count = settings.chosen(params)["data.n_classes"]
        if count is None:
            return []
        try:
            there = data.class_count(self.source)
        except InputError:
            return []
        return [] if count <= there else [f"data.n_classes: got {count}, but the data has {there} classes"]

    def _of_weights(self, params: Params) -> list[str]:
        chosen = settings.chosen(params)
        architecture = chosen["model.architecture"]
        path = settings.weights_of(self.weights, architecture)
        if path is None or not Path(path).is_file():  # `check_data` names a file that is not there
            return []
        from trainables.classification import backbones

        try:
            told = backbones.mistake_of(path, architecture, chosen["model.widths"])
        except InputError as error:
            told = str(error)
        return [told] if told else []

    def check_data(self) -> None:
        """Reads the data and the weights, as a trial will.

        Raises:
            InputErrors: everything that is wrong with them.
            InputError: there is nothing to read, or the folds cannot be made.
        """
        examples = data.read(self.source)
        if self.folds is None:
            one_split(examples, self.source.held_out_share, grouped=self.source.grouped_folds, seed=SPLIT_SEED)
        else:
            fold_splits(examples, self.folds, grouped=self.source.grouped_folds, inner_share=None)
        for path in self.weights.values():
            if not Path(path).is_file():
                raise InputError(
                    f"data.weights: {path!r} does not exist; must be a state dict (.pth, .pt or .safetensors)"
                )

    def fingerprint(self) -> str:
        """Of the rows in their order: classes, labels, groups, texts, features and the content of images."""
        return data.fingerprint_of(data.read(self.source))

    def prepare(self, context: TrialContext) -> dict[str, Any]:
        """What is said once per study: how many rows and classes there are, and what was left out.

        Returns ``{"baseline": metrics, "calibration": {"data": [sentences]}, "images": {}}``; the baseline always names
        the largest class, with the shares of all classes as its probabilities.
        """
        from trainables.classification.making import loaded_weights

        examples = self._examples(context.shared)
        notes = loaded_weights(self.weights, settings.chosen(context.params))
        shares = [float((examples.labels == one).mean()) for one in range(len(examples.classes))]
        said = f"{len(examples)} rows of kind {examples.kind} in {len(examples.classes)} classes"
        return {
            "baseline": {"val_acc": max(shares), "val_loss": -sum(share * math.log(share) for share in shares)},
            "calibration": {"data": [said, *examples.notes, *notes], "baseline": "largest class named always"},
            "images": {},
        }

    def run(self, context: TrialContext) -> Generator[Report, None, None]:
        """Trains one configuration; a Report an epoch, or one a fold and wherever somebody decides."""
        import torch

        from trainables.classification.course import Trial
        from trainables.epoch_log import EpochLog

        torch.set_num_threads(context.threads)
        trial = Trial(self._course(context), context)
        with EpochLog(context.folder, trial.standing.told) as log:
            log.configuration(context.params, ("val_acc", "val_loss"))
            yield from trial.run(log)

    def _examples(self, shared: dict[str, Any]) -> data.Examples:
        """The rows, read once a worker for the same source."""
        kept: dict[DataSource, data.Examples] = shared.setdefault(_SHARED, {})
        if self.source not in kept:
            demos.at_hand(self.source.path)
            kept[self.source] = data.read(self.source)
        return kept[self.source]

    def _course(self, context: TrialContext) -> Course:
        from trainables.classification.course import Course
        from trainables.classification.making import Making

        chosen = settings.chosen(context.params, self.precision)
        making = Making(self, chosen, self._examples(context.shared), context)
        return Course(
            fit=making.fit,
            epochs=chosen.epochs,
            n_folds=0 if self.folds is None else self.folds.n_folds,
            aggregation="mean" if self.folds is None else self.folds.aggregation,
            objective=self.objective,
            timeout_seconds=self.trial_timeout_seconds,
            export=making.export if self.exported else None,
        )
