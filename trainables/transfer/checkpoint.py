"""What a two-stage trial needs to continue exactly: how far it got, stage 1 in progress or finished, finished folds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from trainables.transfer import cache
from trainables.transfer.settings import Stage1Settings
from trainables.transfer.stage1 import Encoders

_STATE, _RUNNING, _FINISHED = "state.json", "stage1.safetensors", "encoders.safetensors"
Folds = Sequence[Mapping[int, Mapping[str, float]]]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """`told` is the budget of the last report. `running` is the state of stage 1 while it lasts, `encoders` its result
    thereafter, `folds` what finished folds measured, by epoch. `seconds` is the training time so far."""

    told: int = 0
    seconds: float = 0.0
    running: tuple[Mapping[str, torch.Tensor], Mapping[str, Any]] | None = None
    encoders: Encoders | None = None
    folds: Folds = field(default_factory=tuple)

    def write(self, folder: Path) -> None:
        """Into an existing folder."""
        more = None
        if self.running is not None:
            tensors, more = self.running
            save_file({name: values.contiguous() for name, values in tensors.items()}, folder / _RUNNING)
        if self.encoders is not None:
            cache.write(folder / _FINISHED, self.encoders)
        folds = [{str(epoch): dict(metrics) for epoch, metrics in fold.items()} for fold in self.folds]
        state = {"told": self.told, "seconds": self.seconds, "running": more, "folds": folds}
        (folder / _STATE).write_text(json.dumps(state), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, inputs: int, settings: Stage1Settings) -> Checkpoint:
        """What `write` wrote, for the same configuration."""
        state = json.loads((folder / _STATE).read_text("utf-8"))
        running = None if state["running"] is None else (load_file(folder / _RUNNING), state["running"])
        finished = folder / _FINISHED
        encoders = cache.read(finished, inputs, settings) if finished.is_file() else None
        folds = tuple({int(epoch): metrics for epoch, metrics in fold.items()} for fold in state["folds"])
        return cls(state["told"], state["seconds"], running, encoders, folds)
