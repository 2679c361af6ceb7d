"""One training of one network on the rows of a split: an epoch, a measurement, and where it stands."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from trainables.classification import metrics as measures
from trainables.classification.inputs import Inputs
from trainables.classification.network import Network
from trainables.classification.objective import Objective
from trainables.classification.schedules import Schedule
from trainables.classification.settings import Chosen
from trainables.classification.split import Split
from trainables.classification.stopping import Best
from trainables.lora.precision import autocast, grad_scaler
from trainables.lora.safety import Watch
from trainables.protocol import Cause, TrialFailure

JUDGED_TOGETHER = 256
"""Rows of a batch that is only measured."""
HIGHER_IS_BETTER = frozenset({"val_acc", "train_acc", "f1_macro", "worst_group_acc"})


def is_higher_better(metric: str) -> bool:
    """Whether more of a metric is better: accuracies (``acc_<group>``, too) and F1."""
    return metric in HIGHER_IS_BETTER or metric.startswith("acc_")


@dataclass(frozen=True, eq=False)
class Groups:
    """The values of a data column, and of each row its place among them, ``(n,)``."""

    names: tuple[str, ...]
    places: torch.Tensor

    @classmethod
    def of(cls, values: Sequence[str]) -> Groups:
        """Of a column with a value a row; rows without one are the group ``none``."""
        told = [value or "none" for value in values]
        names = tuple(sorted(set(told)))
        return cls(names, torch.tensor([names.index(value) for value in told]))


class Fit:
    """Trains a network. `seed` and the number of an epoch are all that its chance comes from, so that a restored
    training continues exactly. `watched` is the metric of early stopping and of the plateau schedule; ``val_acc`` where
    it is none that held-out rows are measured by (seconds, say)."""

    def __init__(
        self,
        network: Network,
        inputs: Inputs,
        split: Split,
        settings: Chosen,
        *,
        seed: int | str,
        device: torch.device,
        groups: Groups | None = None,
        watched: str = "val_acc",
    ) -> None:
        self.network, self.inputs, self.split, self.settings = network, inputs, split, settings
        self._seed, self._device, self._groups = seed, device, groups
        self.watched = watched if watched in self._measured() else "val_acc"
        higher = is_higher_better(self.watched)
        self._optimizer = _optimizer(network, settings)
        self._peaks = [float(group["lr"]) for group in self._optimizer.param_groups]
        self._schedule = Schedule(settings, max(self._peaks), higher_is_better=higher)
        self._scaler = grad_scaler(device, settings["training.precision"])
        self._watch = Watch()
        self._steps = 0
        self.objective = Objective(settings, network.shape.modalities, groups.names if groups is not None else ())
        self.best = Best(int(settings["training.early_stopping"]), higher_is_better=higher)

    @property
    def learning_rate(self) -> float:
        """The highest of the groups' rates."""
        return max(float(group["lr"]) for group in self._optimizer.param_groups)

    def epoch(self, number: int) -> dict[str, float]:
        """Trains one epoch (from 1); returns its mean loss, accuracy and learning rate.

        Raises:
            TrialFailure: the loss or the gradient is not finite, or has exploded.
        """
        torch.manual_seed(seed_of(self._seed, number))
        chance = torch.Generator().manual_seed(seed_of(self._seed, number, "data"))
        share = self._schedule.at(number - 1)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * share
        self.network.train()
        rows = torch.from_numpy(self.split.train)
        rows = rows[torch.randperm(len(rows), generator=chance)]
        loss = right = 0.0
        for index in _batches(rows, int(self.settings["training.batch_size"])):
            value, correct = self._step(index, chance, number)
            loss, right = loss + value * len(index), right + correct
        return {
            "train_loss": loss / len(rows), "train_acc": right / len(rows), "learning_rate": self.learning_rate,
        }  # fmt: skip

    def _step(self, index: torch.Tensor, chance: torch.Generator, number: int) -> tuple[float, int]:
        """One optimizer step; returns its loss and how many of its rows were right."""
        settings = self.settings
        inputs = self.inputs.batch(index, chance, flip=settings["data.flip"], crop=settings["data.crop"])
        labels = self.inputs.labels[index].to(self._device)
        groups = None if self._groups is None else self._groups.places[index].to(self._device)
        with autocast(self._device, settings["training.precision"]):
            output = self.network(inputs)
            loss = self.objective.loss(self.network, output, labels, groups, number - 1)
        value = float(loss.detach())
        self._watch.loss(value, self._steps)
        self._update(loss)
        self._steps += 1
        return value, int((output.logits.argmax(dim=1) == labels).sum())

    def _update(self, loss: torch.Tensor) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        limit = self.settings["training.grad_clip"] or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit))
        if self._scaler is None:
            self._watch.gradient(norm, self._steps)
            self._optimizer.step()
        else:  # an overflow at a high scale is half precision's everyday: the step is left out
            self._scaler.step(self._optimizer)
            self._scaler.update()

    def measure(self, rows: np.ndarray) -> dict[str, float]:
        """What the network as it stands makes of some rows.

        Raises:
            TrialFailure: the loss is not finite.
        """
        labels = self.inputs.labels[torch.from_numpy(rows)]
        logits, alone = self.predict(rows)
        loss = float(F.cross_entropy(logits, labels))
        if not np.isfinite(loss):
            raise TrialFailure(Cause.NAN_LOSS, f"validation loss is {loss} after {self._steps} steps")
        predicted, truth = logits.argmax(dim=1).numpy(), labels.numpy()
        told = {
            "val_acc": measures.accuracy(predicted, truth),
            "val_loss": loss,
            "f1_macro": measures.f1_macro(predicted, truth),
        }
        apart = {name: measures.accuracy(one.argmax(dim=1).numpy(), truth) for name, one in alone.items()}
        told |= measures.group_metrics(apart)
        if self._groups is not None:
            names = [self._groups.names[place] for place in self._groups.places[torch.from_numpy(rows)].tolist()]
            told |= measures.group_metrics(measures.by_group(predicted, truth, names))
        return told

    @torch.no_grad()
    def predict(self, rows: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Class scores ``(n, classes)`` of the fused head, and of each modality's own."""
        self.network.eval()
        fused: list[torch.Tensor] = []
        alone: dict[str, list[torch.Tensor]] = {}
        for index in torch.from_numpy(rows).split(JUDGED_TOGETHER):
            with autocast(self._device, self.settings["training.precision"]):
                output = self.network(self.inputs.batch(index))
            fused.append(output.logits.float().cpu())
            for name, (logits, _) in output.alone.items():
                alone.setdefault(name, []).append(logits.float().cpu())
        return torch.cat(fused), {name: torch.cat(parts) for name, parts in alone.items()}

    def _measured(self) -> set[str]:
        """The metrics that `measure` gives of the rows that are looked at while it trains."""
        modalities = self.network.shape.modalities
        names = set(modalities) if len(modalities) > 1 else set()
        if self._groups is not None:
            looked_at = self.split.inner if len(self.split.inner) else self.split.validation
            names |= {self._groups.names[place] for place in self._groups.places[torch.from_numpy(looked_at)].tolist()}
        return {
            "val_acc",
            "val_loss",
            "f1_macro",
            *(("worst_group_acc",) if names else ()),
            *(f"acc_{n}" for n in names),
        }

    def seen(self, metrics: dict[str, float]) -> None:
        """Tells early stopping and the schedule what an epoch was worth."""
        value = metrics[self.watched]
        self._schedule.seen(value)
        self.best.seen(value, metrics, self.network)

    def group_weights(self) -> dict[str, float]:
        """``group_weight/<group>`` of group-robust training."""
        weights = self.objective.weights
        return {} if weights is None else {f"group_weight/{name}": value for name, value in weights.q.items()}

    def state(self) -> dict[str, Any]:
        """All that is needed to continue exactly from the end of an epoch."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state(),
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "watch": self._watch.state(),
            "steps": self._steps,
            "weights": None if self.objective.weights is None else self.objective.weights.state(),
            "best": self.best.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Loads what `state` gave."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.restore(state["schedule"])
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])
        self._watch.restore(state["watch"])
        self._steps = state["steps"]
        if self.objective.weights is not None:
            self.objective.weights.restore(state["weights"])
        self.best.restore(state["best"])


def _optimizer(network: Network, settings: Chosen) -> torch.optim.Optimizer:
    groups, decay = network.parameter_groups(settings.rates), float(settings["optimizer.weight_decay"])
    if settings["optimizer.type"] == "sgd":
        return torch.optim.SGD(groups, momentum=settings["optimizer.momentum"], weight_decay=decay)
    kind = torch.optim.AdamW if settings["optimizer.type"] == "adamw" else torch.optim.Adam
    return kind(groups, weight_decay=decay)


def _batches(rows: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Rows in batches; a last one of a single row joins the one before, for batch normalisation has no spread of it."""
    batches = list(rows.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def seed_of(*parts: object) -> int:
    """A seed for torch from whatever names a source of chance."""
    return random.Random(":".join(map(str, parts))).randrange(2**62)
