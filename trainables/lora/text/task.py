"""What a batch and a loss are to the LoRA engine when it trains text."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainables.lora import activations
from trainables.lora.adapters import Adapter, LoraShape, Part, require_layers
from trainables.lora.collective import collective_of
from trainables.lora.engine import LoraEngine
from trainables.lora.ground import by_itself
from trainables.lora.optimization import Optimization
from trainables.lora.packed_layers import Routing, Share
from trainables.lora.seats import OwnSeats, Seats
from trainables.lora.settings import EngineSettings, ranks_by_prefix
from trainables.lora.text import judging
from trainables.lora.text.batches import Batch, Plan
from trainables.lora.text.export import MIB, export_adapter, export_merged
from trainables.lora.text.loss import answer_losses, perplexity
from trainables.lora.text.memory import PeakMemory
from trainables.lora.text.session import TextSession
from trainables.protocol import Params, TrialContext, TrialFailure

if TYPE_CHECKING:
    from trainables.llm_lora import LlmLora


class TextTask:
    """One text LoRA on a worker's session; `close` takes it off the shared base again."""

    def __init__(
        self, trainer: LlmLora, session: TextSession, context: TrialContext, seats: Seats | None = None
    ) -> None:
        self.trainer, self.session, self.context, self.params = trainer, session, context, context.params
        self.seats: Seats = seats or OwnSeats()
        self.memory = PeakMemory(session.base.device)
        batch_size, accumulation = trainer.batching(self.params)
        group = collective_of(context.group)
        self.plan = Plan(
            session.rows, batch_size, accumulation, context.seed, session.base.pad, group.rank, group.size
        )  # fmt: skip
        self.adapter = adapter_of(session, self.params, self.seats).attach(context.seed)
        self._clock: float | None = None
        self._seconds, self._tokens = 0.0, 0
        try:
            if self.params.get("gradient_checkpointing", False):
                activations.recompute(session.base.model)
            settings = EngineSettings.from_params(self.params)
            lane = Optimization(
                self.adapter, settings, trainer.horizon(self.params), precision=session.precision, collective=group
            )
            self.engine = LoraEngine([lane])
        except BaseException:  # whatever went wrong, the shared base must be left clean
            self.close()
            raise

    @property
    def slot(self) -> int:
        """Its number among the trials that share the base."""
        return self.seats.slot

    def steps(self, unit: int) -> Sequence[Sequence[Batch]]:
        """The one optimizer step that a budget unit is."""
        if self._clock is None:
            self._clock = time.perf_counter()
        return [self.plan.step(unit)]

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over the answers of the batch."""
        (loss,) = losses([(self, batch)], Routing())
        return loss

    def saw(self, batch: Batch) -> None:
        """Counts what it is trained on."""
        self._tokens += batch.tokens

    def validate(self) -> dict[str, float]:
        """Held-out loss, and what training costs.

        Raises:
            TrialFailure: the loss is not finite.
        """
        (found,) = judging.validated([self], by_itself())
        if isinstance(found, TrialFailure):
            raise found
        return found

    def rest(self) -> None:
        """It trains no more until its next batch."""
        if self._clock is not None:
            self._seconds += time.perf_counter() - self._clock
            self._clock = None

    def measured(self, loss: float) -> dict[str, float]:
        """The metrics of a held-out loss."""
        parameters = sum(parameter.numel() for parameter in self.adapter.parameters())
        return {
            "val_loss": loss,
            "perplexity": perplexity(loss),
            "train_tokens_per_second": self._tokens / max(self._seconds, 1e-9),
            "peak_memory_gib": self.memory.gib(),
            "adapter_mib": parameters * 4 / MIB,
            "trainable_parameters": float(parameters),
        }

    def look(self, budget: int) -> tuple[dict[str, float], dict[str, Path]]:
        """Lets the model write: how fast it is, and at the end what it says to held-out prompts
        (kept in ``samples.json``)."""
        (found,) = judging.looked([(self, budget)], by_itself())
        if isinstance(found, TrialFailure):
            raise found
        return found

    def keep(self, prompts: Sequence[str], said: Sequence[str]) -> None:
        """Writes prompts and what the model said to them."""
        told = [{"prompt": prompt, "completion": text} for prompt, text in zip(prompts, said, strict=True)]
        (self.context.folder / "samples.json").write_text(
            json.dumps(told, indent=2, ensure_ascii=False) + "\n", "utf-8"
        )

    def export(self, metrics: Mapping[str, float]) -> None:
        """Writes the adapter in peft's layout, and where it is asked for the whole model with it merged in."""
        base = self.trainer.base
        provenance = {
            "params": dict(self.params),
            "metrics": dict(metrics),
            "trial": self.context.folder.name,
            "seed": self.context.seed,
            "base": base if not Path(base).is_absolute() else Path(base).name,
            "base_sha256": self.session.base.identity,
            "precision": self.session.precision,
            "quantization": self.session.quantization,
            "dataset": Path(self.trainer.data).name,
            "template": self.session.data.template,
        }
        export_adapter(self.context.folder / "lora", self.session.base, self.adapter, provenance)
        if self.trainer.merged:
            export_merged(self.context.folder / "merged", self.session.base, self.adapter, provenance)

    def close(self) -> None:
        """Takes the adapter off the shared base, and leaves a model that nobody trains any more in evaluation mode
        however the trial ended."""
        self.adapter.detach()
        if self.seats.is_free(self.session.base.model):
            activations.keep(self.session.base.model)
            self.session.base.model.eval()


def losses(asked: Sequence[tuple[TextTask, Batch]], routing: Routing) -> list[torch.Tensor]:
    """The loss of each task's batch, in one pass through the model; all tasks share a session."""
    session = asked[0][0].session
    for task, batch in asked:
        task.saw(batch)
    routing.tell([session.base.model], [Share(task.slot, *batch.ids.shape) for task, batch in asked])
    with session.autocast():
        return answer_losses(session.base.model, [batch.to(session.base.device) for _, batch in asked])


def adapter_of(session: TextSession, params: Params, seats: Seats | None = None) -> Adapter:
    """The adapter that a configuration describes."""
    shape = LoraShape(
        rank=int(params["lora_rank"]),
        alpha=float(params["lora_alpha"]),
        dropout=float(params.get("lora_dropout", 0.0)),
        dora=bool(params.get("use_dora", False)),
        rslora=bool(params.get("use_rslora", False)),
        ranks=ranks_by_prefix(params, "lora_rank"),
    )
    require_layers(shape.ranks, [session.base.model])
    targets = session.base.targets(str(params.get("lora_targets", "all")))
    part = Part("model", session.base.model, float(params["learning_rate"]), shape, targets)
    return Adapter([part], loraplus_ratio=float(params.get("loraplus_lr_ratio", 1.0)), seats=seats)
