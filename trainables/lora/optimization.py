"""One adapter's optimization: rates over its whole horizon, clipping, averaging, safety, and where it stands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from trainables.lora import optimizers, schedules
from trainables.lora.adapters import Adapter
from trainables.lora.collective import collective_of
from trainables.lora.ema import Ema
from trainables.lora.precision import LEAST_SCALE, grad_scaler
from trainables.lora.safety import Watch
from trainables.lora.settings import EngineSettings
from trainables.protocol import Collective


class Optimization:
    """Trains one adapter. The learning rate is a function of the step over the trial's full horizon (`total_steps`),
    so that a paused or restored trial continues its own schedule exactly.

    The adapter must be attached. `precision` decides whether gradients are scaled; `collective` whom they are shared
    with.
    """

    def __init__(
        self,
        adapter: Adapter,
        settings: EngineSettings,
        total_steps: int,
        *,
        precision: str = "fp32",
        collective: Collective | None = None,
    ) -> None:
        self.adapter, self.settings, self.total_steps = adapter, settings, total_steps
        self.collective = collective_of(collective)
        self.step_count = 0
        self._parameters = adapter.parameters()
        groups = adapter.groups()
        self._peak_rates = [float(group["lr"]) for group in groups]
        self._optimizers = optimizers.build(settings.optimizer_type, groups, weight_decay=settings.weight_decay)
        self._rate_at = schedules.schedule(settings, total_steps)
        self._ema = Ema(self._parameters, settings.ema_decay) if settings.ema_decay else None
        self._scaler = grad_scaler(self._parameters[0].device, precision)
        self._watch = Watch()
        self._set_rates()

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def _set_rates(self) -> None:
        share = self._rate_at(min(self.step_count, self.total_steps - 1))
        for group, peak in zip(self._groups(), self._peak_rates, strict=True):
            group["lr"] = peak * share

    @property
    def rates(self) -> list[float]:
        """The learning rate of each parameter group at the next step."""
        return [float(group["lr"]) for group in self._groups()]

    def seen(self, loss: torch.Tensor | None, part: float) -> float:
        """Looks at a micro-batch's loss before anything is computed from it; returns it, summed over the processes.

        `part` is what this process has of the whole micro-batch, 1 where it has all of it.

        Raises:
            TrialFailure: the loss is not finite, or has exploded.
        """
        value = self.collective.sum(0.0 if loss is None else float(loss.detach()) * part)
        self._watch.loss(value, self.step_count)
        return value

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss as it goes backward."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def step(self) -> None:
        """One optimizer step with the gradients that have come together.

        Raises:
            TrialFailure: the gradient is not finite.
        """
        self.collective.sum_gradients(self._parameters)
        if self._scaler is not None:
            for optimizer in self._optimizers:
                self._scaler.unscale_(optimizer)
        limit = self.settings.max_grad_norm or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, limit))
        if self._scaler is None:
            self._watch.gradient(norm, self.step_count)
        self._update(norm)
        self.step_count += 1
        if self._ema is not None:
            self._ema.update(self.step_count)
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        self._set_rates()

    def _update(self, norm: float) -> None:
        if self._scaler is None:
            for optimizer in self._optimizers:
                optimizer.step()
            return
        # An overflow at a high scale is half precision's everyday: the step is left out, for every optimizer, and the
        # scale lowered. It is the gradient's own fault once there is hardly a scale left.
        if math.isfinite(norm):
            for optimizer in self._optimizers:
                self._scaler.step(optimizer)
        self._scaler.update()
        if self._scaler.get_scale() < LEAST_SCALE:
            self._watch.gradient(norm, self.step_count)

    def gradients(self) -> list[torch.Tensor | None]:
        """What has come together since the last step, on the CPU."""
        return [None if one.grad is None else one.grad.detach().cpu().clone() for one in self._parameters]

    def restore_gradients(self, gradients: Sequence[torch.Tensor | None]) -> None:
        """Loads what `gradients` gave."""
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)

    @contextmanager
    def judged(self) -> Iterator[None]:
        """The weights that are judged and exported stand in the model: the average where one is kept."""
        if self._ema is None:
            yield
            return
        with self._ema.in_place():
            yield

    def state(self) -> dict[str, Any]:
        """All that is needed to continue exactly from here."""
        return {
            "adapter": self.adapter.state(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "step": self.step_count,
            "watch": self._watch.state(),
            "ema": None if self._ema is None else self._ema.state(),
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Loads what `state` gave.

        Raises:
            ValueError: the state belongs to another adapter.
        """
        self.adapter.restore(state["adapter"])
        for optimizer, mine in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(mine)
        self.step_count = state["step"]
        self._watch.restore(state["watch"])
        if self._ema is not None:
            self._ema.restore(state["ema"])
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])
        self._set_rates()
