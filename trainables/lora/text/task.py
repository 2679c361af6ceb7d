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
from trainables.lora.optimization import Optimization
from trainables.lora.settings import EngineSettings, ranks_by_prefix
from trainables.lora.text.batches import Batch, Plan
from trainables.lora.text.completions import Prompt, complete, tokens_per_second
from trainables.lora.text.export import MIB, export_adapter, export_merged
from trainables.lora.text.loss import answer_loss, perplexity
from trainables.lora.text.memory import PeakMemory
from trainables.lora.text.session import TextSession
from trainables.protocol import Params, TrialContext

if TYPE_CHECKING:
    from trainables.llm_lora import LlmLora

SAMPLE_TOKENS = 64


class TextTask:
    """One text LoRA on a worker's session; `close` takes it off the shared base again."""

    def __init__(self, trainer: LlmLora, session: TextSession, context: TrialContext) -> None:
        self.trainer, self.session, self.context, self.params = trainer, session, context, context.params
        self.memory = PeakMemory(session.base.device)
        batch_size, accumulation = trainer.batching(self.params)
        group = collective_of(context.group)
        self.plan = Plan(
            session.rows, batch_size, accumulation, context.seed, session.base.pad, group.rank, group.size
        )  # fmt: skip
        self.adapter = adapter_of(session, self.params).attach(context.seed)
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

    def steps(self, unit: int) -> Sequence[Sequence[Batch]]:
        """The one optimizer step that a budget unit is."""
        if self._clock is None:
            self._clock = time.perf_counter()
        return [self.plan.step(unit)]

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over the answers of the batch."""
        self._tokens += batch.tokens
        with self.session.autocast():
            return answer_loss(self.session.base.model, batch.to(self.session.base.device))

    def validate(self) -> dict[str, float]:
        """Held-out loss, and what training costs."""
        if self._clock is not None:
            self._seconds += time.perf_counter() - self._clock
            self._clock = None
        loss = self.session.validation_loss()
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
        session, is_chat = self.session, self.session.data.template == "chat"
        prompts = [Prompt(text, is_chat) for text in session.data.prompts]
        speed = tokens_per_second(session.base, prompts[0], session.autocast())
        if budget < self.trainer.horizon(self.params):
            return {"tokens_per_second": speed}, {}
        said = complete(
            session.base, prompts[: self.trainer.samples], session.autocast(), max_new_tokens=SAMPLE_TOKENS
        )  # fmt: skip
        told = [{"prompt": prompt.text, "completion": text} for prompt, text in zip(prompts, said, strict=False)]
        (self.context.folder / "samples.json").write_text(
            json.dumps(told, indent=2, ensure_ascii=False) + "\n", "utf-8"
        )
        return {"tokens_per_second": speed}, {}

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
        """Takes the adapter off the shared base, and leaves it in evaluation mode however the trial ended."""
        activations.keep(self.session.base.model)
        self.session.base.model.eval()
        self.adapter.detach()


def adapter_of(session: TextSession, params: Params) -> Adapter:
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
    return Adapter([part], loraplus_ratio=float(params.get("loraplus_lr_ratio", 1.0)))
