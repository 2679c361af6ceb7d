"""Optimizer, schedule, accumulation, clipping, safety and checkpoints of LoRA training, for any model and any loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainables.lora import optimizers, schedules
from trainables.lora.adapters import Adapter
from trainables.lora.safety import Watch
from trainables.protocol import Params

CHECKPOINT = "engine.pt"


@dataclass(frozen=True)
class EngineSettings:
    """What a search space may say about optimization. Steps are optimizer steps."""

    optimizer_type: str = "AdamW"
    lr_scheduler: str = "cosine"
    lr_scheduler_num_cycles: int = 1
    lr_warmup_steps: int = 0
    gradient_accumulation_steps: int = 1
    max_grad_norm: float = 1.0
    weight_decay: float = 0.01

    @classmethod
    def from_params(cls, params: Params) -> EngineSettings:
        """Picks the settings of this class out of a configuration; the rest is somebody else's."""
        return cls(**{name: params[name] for name in cls.__dataclass_fields__ if name in params})


class LoraEngine:
    """Trains adapters over a frozen base. The caller says what a loss is; everything after `backward` is here.

    The schedule is a function of the step over the trial's full horizon (`total_steps`), so a restored engine
    continues exactly.
    """

    def __init__(self, adapters: Sequence[Adapter], settings: EngineSettings, total_steps: int) -> None:
        self.adapters, self.settings, self.total_steps = list(adapters), settings, total_steps
        self.optimizer = optimizers.build(settings.optimizer_type, self._groups(), weight_decay=settings.weight_decay)
        self._multiplier = schedules.schedule(
            settings.lr_scheduler,
            total=total_steps,
            warmup=settings.lr_warmup_steps,
            cycles=settings.lr_scheduler_num_cycles,
        )
        self._watch = Watch()
        self.step_count = 0
        self._pending = 0
        self._set_rates()

    def _groups(self) -> list[dict[str, Any]]:
        return [{"params": adapter.parameters(), "lr": adapter.rate} for adapter in self.adapters]

    def _set_rates(self) -> None:
        share = self._multiplier(min(self.step_count, self.total_steps - 1))
        for group, adapter in zip(self.optimizer.param_groups, self.adapters, strict=True):
            group["lr"] = adapter.rate * share

    @property
    def rates(self) -> list[float]:
        """The learning rate of each adapter at the next step."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def backward(self, loss: torch.Tensor, *, last: bool = False) -> float:
        """Accumulates one micro-batch; steps when enough are together or `last` (the epoch's end) says so.

        Returns the loss as a number.

        Raises:
            TrialFailure: the loss or the gradient is not finite, or has exploded.
        """
        value = float(loss.detach())
        self._watch.loss(value, self.step_count)
        (loss / self.settings.gradient_accumulation_steps).backward()
        self._pending += 1
        if last or self._pending == self.settings.gradient_accumulation_steps:
            self._step()
        return value

    def _step(self) -> None:
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        self._watch.gradient(float(norm), self.step_count)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._pending = 0
        self.step_count += 1
        self._set_rates()

    def save(self, folder: Path, budget: int) -> None:
        """Writes adapters, optimizer state and position into an existing folder, all in one file."""
        state = {
            "adapters": [adapter.state() for adapter in self.adapters],
            "optimizer": self.optimizer.state_dict(),
            "step": self.step_count,
            "budget": budget,
        }
        torch.save(state, folder / CHECKPOINT)

    def restore(self, folder: Path) -> int:
        """Loads what `save` wrote; returns its budget."""
        state = torch.load(folder / CHECKPOINT, weights_only=True, map_location="cpu")
        for adapter, tensors in zip(self.adapters, state["adapters"], strict=True):
            adapter.restore(tensors)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step_count = state["step"]
        self._set_rates()
        return int(state["budget"])


def steps_per_epoch(samples: int, batch_size: int, accumulation: int) -> int:
    """Optimizer steps of one epoch: the last, smaller batch and the last, incomplete accumulation both count."""
    batches = -(-samples // batch_size)
    return -(-batches // accumulation)
