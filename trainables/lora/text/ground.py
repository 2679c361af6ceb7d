"""What text trials stand on when they train together: a session, and how their batches are put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainables.lora.course import Course
from trainables.lora.ground import Panel
from trainables.lora.grounds import alike, differing
from trainables.lora.meter import Charge
from trainables.lora.packed_layers import Routing
from trainables.lora.seats import Seats
from trainables.lora.text import judging
from trainables.lora.text import task as text_task
from trainables.lora.text.batches import Batch
from trainables.lora.text.judging import Looked
from trainables.lora.text.session import TextSession, session_for
from trainables.lora.text.task import TextTask
from trainables.protocol import Params, TrialContext, TrialFailure

if TYPE_CHECKING:
    from trainables.llm_lora import LlmLora


class TextGround:
    """One language model, one set of examples, one precision, those of the first trial's context."""

    def __init__(self, trainer: LlmLora, context: TrialContext) -> None:
        self._trainer = trainer
        self.session: TextSession = session_for(trainer, context, context.params)
        self._recomputes = bool(context.params.get("gradient_checkpointing", False))
        self.device = self.session.base.device
        self._mixed = mixing_layer(self.session.base.model, self.session.base.targets("all").layers)

    def differences(self, params: Params) -> list[str]:
        """Why a configuration cannot share the base."""
        trainer, session = self._trainer, self.session
        quantization = params.get("quantization", trainer.quantization)
        found = trainer.check(params)
        found += differing("precision", params.get("precision", trainer.precision), session.precision)
        found += differing("quantization", quantization, session.quantization)
        if quantization == "int8":
            found.append(
                "quantization: got int8; must be none or nf4 beside other trials: which values 8 bits leave out is"
                " decided over all rows of a batch"
            )
        if self._mixed is not None:
            found.append(
                f"base {session.base.label}: layer {self._mixed} is not called with the rows of a batch; must be, so"
                " that each row meets its own trial's adapter"
            )
        return found + alike(params, [session.base.model], recomputes=self._recomputes, dropout="lora_dropout")

    def task(self, context: TrialContext, seats: Seats) -> TextTask:
        """A trial's task, its adapter in its seats."""
        return TextTask(self._trainer, self.session, context, seats)

    def course(self, params: Params) -> Course:
        """As the trainer has it."""
        return self._trainer.course(params)

    def likeness(self, params: Params) -> tuple[Any, ...]:
        """What decides whether updates are computed together: kind, rank, rows of a micro-batch."""
        apart = bool(params.get("use_dora", False) or params.get("lora_dropout", 0.0))
        return apart, int(params["lora_rank"]), self._trainer.batching(params)[0]

    def weight(self, params: Params) -> float:
        """Rows of a micro-batch."""
        return float(self._trainer.batching(params)[0])

    def groups(self, asked: Sequence[tuple[TextTask, Batch]]) -> list[list[int]]:
        """Rows of similar lengths go together."""
        return similar([batch.ids.shape[1] for _, batch in asked])

    def losses(self, asked: Sequence[tuple[TextTask, Batch]], routing: Routing, charge: Charge) -> list[torch.Tensor]:
        """The loss of each batch, in one pass through the model, charged by tokens."""
        found = text_task.losses(asked, routing)
        charge({task.slot: batch.ids.numel() for task, batch in asked})
        return found

    def validated(self, tasks: Sequence[TextTask], panel: Panel) -> list[dict[str, float] | TrialFailure]:
        """Held-out losses, and what training costs."""
        return judging.validated(tasks, panel)

    def looked(self, asked: Sequence[tuple[TextTask, int]], panel: Panel) -> list[Looked | TrialFailure]:
        """Speeds, and at the end completions."""
        return judging.looked(asked, panel)


def similar(lengths: Sequence[int]) -> list[list[int]]:
    """Places of lengths that are padded to the longest of their group: none to more than twice its own."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if groups and 2 * lengths[place] >= lengths[groups[-1][0]]:
            groups[-1].append(place)
        else:
            groups.append([place])
    return [sorted(group) for group in groups]


@torch.no_grad()
def mixing_layer(model: Any, layers: Callable[[Any], Any]) -> str | None:
    """The first layer that a model does not call with the rows of its batch, but with something else, such as all
    tokens in one row or those that a router sent there; None where there is none. Tried on two sizes of batch."""
    wanted = dict(layers(model))
    for rows in (2, 3):
        seen: dict[str, set[int]] = {name: set() for name in wanted}
        hooks = [module.register_forward_pre_hook(_noting(seen[name])) for name, module in wanted.items()]
        try:
            model(input_ids=torch.arange(5, device=model.device).repeat(rows, 1), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        for name, found in seen.items():
            if found != {rows}:
                return name
    return None


def _noting(seen: set[int]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def note(_: nn.Module, given: tuple[Any, ...]) -> None:
        if given and isinstance(given[0], torch.Tensor):
            seen.add(len(given[0]))

    return note
