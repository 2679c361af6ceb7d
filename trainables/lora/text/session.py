"""What outlives a text trial on a worker: the base, the tokenised data, the validation batches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainables import demos
from trainables.lora.precision import autocast
from trainables.lora.shared import forget
from trainables.lora.text import base as bases
from trainables.lora.text import dataset
from trainables.lora.text.batches import Batch, Row, evaluation_batches, pack
from trainables.lora.text.dataset import Split, TextData
from trainables.lora.text.loss import packs_cleanly, validation_loss, validation_losses
from trainables.lora.text.settings import TextSettings
from trainables.protocol import Params, TrialContext, TrialFailure
from tune_lora.errors import InputError

if TYPE_CHECKING:
    from trainables.llm_lora import LlmLora

_KEY = "llm_lora"
VALIDATION_TOKENS = 4096
"""Of one validation batch, padding counted: no gradients are kept, so it may be larger than a training batch."""


class TextSession:
    """Everything that the trials of one study share on one worker. `precision` and `quantization` are the base's."""

    def __init__(self, trainer: LlmLora, precision: str, quantization: str) -> None:
        self.trainer, self.precision, self.quantization = trainer, precision, quantization
        self.base = bases.load(trainer.base, precision=precision, quantization=quantization)
        self.base.require_positions(trainer.settings.max_length)
        self.split: Split = dataset.split(demos.at_hand(Path(trainer.data)), trainer.settings)
        self.data: TextData = dataset.tokenise(self.split, self.base.tokenizer, trainer.settings)
        self.rows = rows_of(self.data, trainer.settings)
        self.batches: list[Batch] = [
            batch.to(self.base.device)
            for batch in evaluation_batches(self.data.held_out, self.base.pad, VALIDATION_TOKENS)
        ]
        if trainer.settings.packing:
            self._require_clean_packing()

    def _require_clean_packing(self) -> None:
        with self.autocast():
            if not packs_cleanly(self.base.model, len(self.base.tokenizer)):
                kind = type(self.base.model).__name__
                raise InputError(f"packing: got true, but {kind} lets packed examples see each other; must be false")

    def autocast(self) -> AbstractContextManager[object]:
        """Arithmetic of the forward pass."""
        return autocast(self.base.device, self.precision)

    def validation_loss(self) -> float:
        """Held-out loss of the base with whatever adapter is attached; the model is in evaluation mode."""
        return validation_loss(self.base.model, self.batches, self.autocast())

    def validation_losses(self, adapters: int, tell: Callable[[range, Batch], object]) -> list[float | TrialFailure]:
        """Held-out loss of each of several adapters, or that it is none; before each pass `tell` is told which of them
        are asked about which batch."""
        return validation_losses(
            self.base.model, self.batches, self.autocast(), adapters=adapters, tokens=VALIDATION_TOKENS, tell=tell
        )

    def notes(self) -> list[str]:
        """What a person should know of the base and the data."""
        told = [*self.base.notes(), *self.data.counts.notes(self.trainer.settings.max_length)]
        held_out = f"{len(self.data.held_out)} held-out examples"
        if self.split.left_out:
            held_out += f"; {self.split.left_out} more are not used (held_out_limit)"
        told.append(held_out)
        if self.trainer.settings.packing:
            told.append(f"packed into {len(self.rows)} rows of at most {self.trainer.settings.max_length} tokens")
        return told


def rows_of(data: TextData, settings: TextSettings) -> list[Row]:
    """The rows that training draws from: packed, or one example each."""
    return pack(data.train, settings.max_length) if settings.packing else [(tokens,) for tokens in data.train]


def row_count(base: str, data: str, settings: TextSettings) -> int:
    """How many rows an epoch has; loads the tokenizer, but no model.

    Raises:
        InputError: base or data cannot be read.
    """
    bases.quiet()
    tokenised = dataset.tokenise(dataset.split(Path(data), settings), bases.load_tokenizer(base), settings)
    return len(rows_of(tokenised, settings))


def session_for(trainer: LlmLora, context: TrialContext, params: Params) -> TextSession:
    """The worker's session for this trainer; made at the first trial, and again only where base, data or precision
    differ."""
    torch.set_num_threads(context.threads)
    precision = str(params.get("precision", trainer.precision))
    quantization = str(params.get("quantization", trainer.quantization))
    key = repr((trainer, precision, quantization))
    held = context.shared.get(_KEY)
    if held is None or held[0] != key:
        held = None
        forget(context.shared)
        context.shared[_KEY] = held = (key, TextSession(trainer, precision, quantization))
    session: TextSession = held[1]
    return session
