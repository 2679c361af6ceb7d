"""The loss on answers: cross-entropy of the learnt tokens, with logits for those positions only."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F

from trainables.lora.text.batches import IGNORED, Batch
from trainables.protocol import Cause, TrialFailure

CHUNK = 4096
"""Targets whose logits stand in fp32 at a time: 0.8 GB of a vocabulary of 50,000."""
LARGEST_LOSS = 700.0
"""Beyond it perplexity is more than a float holds."""


def answer_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the targets that this process has of a micro-batch, fp32.

    Logits are computed for the positions that have a target: for a vocabulary of 50,000 and short answers that is most
    of the memory.
    """
    losses = _sums(model, batch)
    return torch.stack(losses).sum() / max(1, batch.local)


def _sums(model: Any, batch: Batch) -> list[torch.Tensor]:
    logits, targets = _logits(model, batch)
    parts = zip(logits.split(CHUNK), targets.split(CHUNK), strict=True)
    return [F.cross_entropy(some.float(), wanted, reduction="sum") for some, wanted in parts]


def _logits(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (targets, vocabulary) of the positions that have a target, and these targets."""
    learnt = batch.targets != IGNORED
    # No attention mask: it is causal, padding stands behind, and positions say where examples begin.
    inputs = {"input_ids": batch.ids, "position_ids": batch.positions, "use_cache": False}
    if _can_choose(model):
        return model(**inputs, logits_to_keep=learnt).logits, batch.targets[learnt]
    return model(**inputs).logits[learnt], batch.targets[learnt]


def _can_choose(model: Any) -> bool:
    """Whether the model computes logits for chosen positions; one with code of its own may not."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


@torch.no_grad()
def validation_loss(model: Any, batches: Sequence[Batch], autocast: AbstractContextManager[object]) -> float:
    """Mean cross-entropy over all targets of all batches; the model is in evaluation mode.

    Raises:
        TrialFailure: it is not finite.
    """
    total, count = 0.0, 0
    with autocast:
        for batch in batches:
            total += float(torch.stack(_sums(model, batch)).sum())
            count += batch.size
    loss = total / count
    if not math.isfinite(loss):
        raise TrialFailure(Cause.NAN_LOSS, f"validation loss is {loss}")
    return loss


def perplexity(loss: float) -> float:
    """exp(loss), kept finite."""
    return math.exp(min(loss, LARGEST_LOSS))


@torch.no_grad()
def packs_cleanly(model: Any, vocabulary: int) -> bool:
    """Whether the model keeps packed examples apart by their positions alone: not all architectures do."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (1, 12), generator=generator).to(model.device)
    apart, together = torch.arange(6).repeat(2), torch.arange(12)

    def second_half(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        found = model(input_ids=tokens, position_ids=positions[None].to(model.device), use_cache=False)
        logits: torch.Tensor = found.logits[:, -6:].float()
        return logits

    alone = second_half(ids[:, 6:], apart[:6])
    leak = (second_half(ids, together) - alone).abs().max()  # what it is when they do see each other
    return bool((second_half(ids, apart) - alone).abs().max() <= 0.1 * leak)
