"""Learning curves with no model and no GPU: what tests, examples and benchmarks of everything around a trainer run
on."""

from __future__ import annotations

import functools
import json
import math
import os
import random
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.protocol import Cause, Params, Report, Stepped, TrialContext, TrialFailure
from trainables.rules import mistakes, number, whole
from tune_lora.errors import InputErrors

METRICS = ("score", "val_loss", "cost")
"""What each report holds."""
RANK = 16
"""The rank at which an epoch costs 1."""
TRACE = "TUNE_LORA_CURVE_TRACE"
"""Environment variable: a folder."""
_STATE = "curve.json"
_RULES = {"learning_rate": number(above=0), "max_train_epochs": whole(), "network_dim": number(above=0)}


@dataclass(frozen=True)
class Curve:
    """A score that falls towards an asymptote, the lower the nearer the learning rate is to `best_rate` (in decades).

    score(b) = 0.1 + distance^2 + exp(-b / 3) + noise, and cost(b) = b. A configuration with a `network_dim` trades the
    one for the other: 0.5 / dim is added to its score, and its epochs cost dim / 16 each.

    Above `nan_above` the loss is NaN at the second epoch; above `crash_above` the trainer has a bug. `seconds` is slept
    each epoch.
    """

    best_rate: float = 1e-3
    noise: float = 0.005
    nan_above: float = math.inf
    crash_above: float = math.inf
    seconds: float = 0.0
    budget_unit: str = "epoch"

    def horizon(self, params: Params) -> int:
        """Epochs of a trial."""
        return int(params.get("max_train_epochs", 8))

    def check(self, params: Params) -> list[str]:
        """What is wrong with a configuration."""
        missing = [] if "learning_rate" in params else ["learning_rate is missing; the curve needs it"]
        return missing + mistakes(params, _RULES)

    def run(self, context: TrialContext) -> Generator[Report, None, None]:
        """One Report an epoch, each with the score."""
        for epoch in range(_done(context.restore) + 1, self.horizon(context.params) + 1):
            _trace(context, epoch)
            time.sleep(self.seconds)
            yield self.report(context, epoch)

    def report(self, context: TrialContext, epoch: int) -> Report:
        """What a trial says at an epoch.

        Raises:
            TrialFailure: its loss is NaN.
        """
        rate = float(context.params["learning_rate"])
        if rate > self.crash_above:
            raise RuntimeError("a bug, as it was asked for")
        if rate > self.nan_above and epoch >= 2:
            raise TrialFailure(Cause.NAN_LOSS, f"loss is nan at epoch {epoch}")
        distance = math.log10(rate / self.best_rate)
        noise = random.Random(f"{context.seed}:{epoch}").gauss(0, self.noise)
        rank = context.params.get("network_dim")
        score = 0.1 + distance**2 + math.exp(-epoch / 3) + (0.5 / rank if rank else 0) + noise
        metrics = {"score": score, "val_loss": score, "cost": epoch * (rank or RANK) / RANK}
        final = epoch == self.horizon(context.params)
        return Report(epoch, metrics, functools.partial(_write, epoch=epoch), final=final)

    def pack(self, context: TrialContext) -> CurvePack:
        """Room for several curves; those with another ``precision`` than the first find none."""
        return CurvePack(self, context)


class CurvePack:
    """Curves that are drawn side by side, an epoch a step. A step sleeps the seconds of one epoch, however many are
    drawn: it is the packing that pays."""

    def __init__(self, trainer: Curve, context: TrialContext) -> None:
        self._trainer, self._precision = trainer, context.params.get("precision", "fp32")
        self._seated: dict[int, list[Any]] = {}
        self._next = 0

    @property
    def slots(self) -> tuple[int, ...]:
        """Who is seated."""
        return tuple(self._seated)

    def differences(self, context: TrialContext) -> list[str]:
        """A line where the precision is another."""
        got = context.params.get("precision", "fp32")
        return [] if got == self._precision else [f"precision: got {got}; must be {self._precision}"]

    def weight(self, context: TrialContext) -> float:
        """Its rank."""
        return float(context.params.get("network_dim", RANK))

    def join(self, context: TrialContext) -> int:
        """Seats a curve."""
        if found := self.differences(context):
            raise InputErrors(found)
        slot, self._next = self._next, self._next + 1
        self._seated[slot] = [context, _done(context.restore)]
        return slot

    def step(self, resting: frozenset[int] = frozenset()) -> Stepped:
        """An epoch of all that are not complete."""
        stepped = Stepped()
        drawn = [slot for slot in self._seated if slot not in resting and not self._is_complete(slot)]
        time.sleep(self._trainer.seconds)
        for slot in drawn:
            context, epoch = self._seated[slot][0], self._seated[slot][1] + 1
            _trace(context, epoch)
            stepped.seconds[slot] = self._trainer.seconds / len(drawn)
            try:
                stepped.reports[slot] = self._trainer.report(context, epoch)
            except TrialFailure as failure:
                stepped.failures[slot] = failure
                self.leave(slot)
                continue
            self._seated[slot][1] = epoch
        return stepped

    def _is_complete(self, slot: int) -> bool:
        context, epoch = self._seated[slot]
        return bool(epoch >= self._trainer.horizon(context.params))

    def leave(self, slot: int) -> None:
        """Takes a curve out."""
        del self._seated[slot]

    def close(self) -> None:
        """Takes all of them out."""
        self._seated.clear()


def _trace(context: TrialContext, epoch: int) -> None:
    """Notes an epoch that is begun where `TRACE` names a folder, so that repeated ones can be counted."""
    if folder := os.environ.get(TRACE):
        with (Path(folder) / f"{context.folder.name}.txt").open("a") as stream:
            stream.write(f"{epoch}\n")


def _done(folder: Path | None) -> int:
    return int(json.loads((folder / _STATE).read_text())["epoch"]) if folder else 0


def _write(folder: Path, epoch: int) -> None:
    (folder / _STATE).write_text(json.dumps({"epoch": epoch}))
