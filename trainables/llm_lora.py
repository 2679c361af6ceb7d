"""LoRA of causal language models on instruction data, conversations or plain text. Optimization is the engine's."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables import demos
from trainables.fingerprints import fingerprint
from trainables.lora.choices import TARGETS
from trainables.lora.settings import ENGINE_RULES, KIND_RULES
from trainables.lora.text.settings import QUANTIZATIONS, TextSettings
from trainables.protocol import Params, Report, TrialContext
from trainables.rules import SHARE, Rule, is_known, mistakes, number, one_of, whole

if TYPE_CHECKING:
    from trainables.lora.course import Course
    from trainables.lora.pack import Pack

REQUIRED = ("lora_rank", "lora_alpha", "learning_rate")
RULES: Mapping[str, Rule] = {
    **ENGINE_RULES,
    **KIND_RULES,
    "lora_rank": whole(1),
    "lora_rank.*": whole(0),
    "lora_alpha": number(above=0),
    "lora_dropout": SHARE,
    "lora_targets": one_of(TARGETS),
    "batch_size": whole(1),
    "effective_batch_size": whole(1),
    "epochs": whole(1),
    "max_steps": whole(1),
    "quantization": one_of(QUANTIZATIONS),
}
"""``lora_rank.model.layers.0`` and the like are ranks of the layers whose name begins so."""
METRICS = (
    "val_loss", "perplexity", "train_loss", "tokens_per_second", "train_tokens_per_second", "peak_memory_gib",
    "adapter_mib", "trainable_parameters", "learning_rate",
)  # fmt: skip
"""What the last report of a trial holds. `tokens_per_second` is the speed of writing, and measured where somebody
decides and at the end; the others at every report."""
MEASURED_BY_CLOCK = ("tokens_per_second", "train_tokens_per_second", "peak_memory_gib")
"""Those of the machine: they differ from run to run."""
REPORTS = 20
"""Of a trial, unless it is said how often."""
EFFECTIVE_BATCH_SIZE = 4
SAID_TWICE = (("epochs", "max_steps"), ("effective_batch_size", "gradient_accumulation_steps"))
"""Settings that say the same thing in two ways; the second wins."""


@dataclass(frozen=True)
class LlmLora:
    """The text LoRA trainer.

    `base` is a folder, a .gguf file, a hub name or ``smollm2``; `data` a file of examples. `precision` is how the base
    is held and computed with (adapters stay fp32), `quantization` whether it is held in fewer bits. A trial may say
    both for itself. `report_every` is in steps; `samples` completions are kept at the end; `merged`
    exports the whole model, too.
    """

    base: str
    data: str
    settings: TextSettings = field(default_factory=TextSettings)
    precision: str = "fp32"
    quantization: str = "none"
    report_every: int | None = None
    samples: int = 4
    merged: bool = False
    trial_timeout_seconds: float | None = None
    budget_unit: str = "step"

    def horizon(self, params: Params) -> int:
        """Optimizer steps of a trial: `max_steps`, else so many epochs (1 unless said)."""
        if "max_steps" in params:
            return int(params["max_steps"])
        batch_size, accumulation = self.batching(params)
        return int(params.get("epochs", 1)) * -(-self._rows() // (batch_size * accumulation))

    def _rows(self) -> int:
        """Rows of an epoch: counting them takes the tokenizer, so it is done once a process for the same data."""
        from trainables.lora.text.session import row_count

        data = Path(self.data)
        key = (self.base, self.data, repr(self.settings), data.stat().st_mtime_ns if data.is_file() else 0)
        if key not in _ROWS:
            _ROWS[key] = row_count(self.base, self.data, self.settings)
        return _ROWS[key]

    @staticmethod
    def batching(params: Params) -> tuple[int, int]:
        """Rows of a micro-batch, and micro-batches of an optimizer step: together the effective batch, which is 4 rows
        unless it is said."""
        batch_size = int(params.get("batch_size", 1))
        if "gradient_accumulation_steps" in params:
            return batch_size, int(params["gradient_accumulation_steps"])
        return batch_size, max(1, int(params.get("effective_batch_size", EFFECTIVE_BATCH_SIZE)) // batch_size)

    def check(self, params: Params) -> list[str]:
        """What is wrong with a configuration before anything is loaded; empty when nothing is."""
        missing = [name for name in REQUIRED if name not in params]
        found = [f"{name} is missing; the text LoRA trainer needs {', '.join(REQUIRED)}" for name in missing]
        found += mistakes(params, RULES)
        return found or [*self._of_steps(params), *self._of_batches(params), *self._of_quantization(params)]

    @staticmethod
    def _of_steps(params: Params) -> list[str]:
        if not {"epochs", "max_steps"} <= params.keys():
            return []
        return [
            f"epochs: got {params['epochs']} beside max_steps {params['max_steps']}, which wins; must be left out, or "
            "max_steps"
        ]

    def _of_batches(self, params: Params) -> list[str]:
        batch_size, accumulation = self.batching(params)
        effective = int(params.get("effective_batch_size", EFFECTIVE_BATCH_SIZE))
        if "gradient_accumulation_steps" in params:
            if params.get("effective_batch_size", batch_size * accumulation) == batch_size * accumulation:
                return []
            return [
                f"effective_batch_size: got {effective} beside gradient_accumulation_steps {accumulation}, which wins "
                f"and makes {batch_size * accumulation} with batch_size {batch_size}; must be left out, or "
                "gradient_accumulation_steps"
            ]
        if effective % batch_size == 0:
            return []
        return [f"effective_batch_size: got {effective} with batch_size {batch_size}; must be a multiple of it"]

    def _of_quantization(self, params: Params) -> list[str]:
        kind = params.get("quantization", self.quantization)
        if kind == "none" or not params.get("use_dora", False):
            return []
        return [f"use_dora: got true with quantization {kind}; must be false, since DoRA needs the whole weights"]

    def knows(self, name: str) -> bool:
        """Whether a configuration may hold this setting."""
        return is_known(name, RULES)

    def course_of(self, params: Params) -> tuple[int, int]:
        """Steps of a trial, and steps between its reports."""
        horizon = self.horizon(params)
        return horizon, self.report_every or max(1, math.ceil(horizon / REPORTS))

    def run(self, context: TrialContext) -> Generator[Report, None, None]:
        """Trains one LoRA; Reports at every `report_every` steps, where somebody decides and at the end."""
        from trainables.lora import trial
        from trainables.lora.safety import out_of_memory_is_a_cause
        from trainables.lora.text.session import session_for
        from trainables.lora.text.task import TextTask

        with out_of_memory_is_a_cause():
            task = TextTask(self, session_for(self, context, context.params), context)
            try:
                yield from trial.run(task, task.engine, context, self.course(context.params))
            finally:
                task.close()

    def course(self, params: Params) -> Course:
        """How far a trial goes, and when it speaks."""
        from trainables.lora.course import Course

        horizon, every = self.course_of(params)
        return Course(horizon, self.budget_unit, every, self.trial_timeout_seconds)

    def pack(self, context: TrialContext) -> Pack:
        """Room for several trials on one base, the context's; nobody is seated yet."""
        from trainables.lora.pack import Pack
        from trainables.lora.text.ground import TextGround

        return Pack(TextGround(self, context))

    def prepare(self, context: TrialContext) -> dict[str, Any]:
        """What is done once per study: fills the caches, judges the untrained base, says what became of the data.

        Returns ``{"baseline": metrics, "calibration": {"data": [sentences], "prompts": [...]}, "images": {}}``.
        """
        from trainables.lora.text.loss import perplexity
        from trainables.lora.text.session import session_for

        session = session_for(self, context, context.params)
        loss = session.validation_loss()
        return {
            "baseline": {"val_loss": loss, "perplexity": perplexity(loss)},
            "calibration": {"data": session.notes(), "prompts": list(session.data.prompts)},
            "images": {},
        }

    def fingerprint(self) -> str:
        """Of the files of examples."""
        validation = self.settings.validation
        return fingerprint([], [Path(path) for path in (self.data, validation) if path is not None])

    def check_data(self) -> None:
        """Reads the examples, as a trial will.

        Raises:
            InputErrors: everything that is wrong with them.
        """
        from trainables.lora.text import dataset

        dataset.split(demos.at_hand(Path(self.data)), self.settings)


_ROWS: dict[tuple[str, str, str, int], int] = {}
