"""The loss on answers: cross-entropy of the learnt tokens, with logits for those positions only."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F

from trainables.lora.text.batches import IGNORED, Batch, together
from trainables.protocol import Cause, TrialFailure

CHUNK = 4096
"""Targets whose logits stand in fp32 at a time: 0.8 GB of a vocabulary of 50,000."""
LARGEST_LOSS = 700.0
"""Beyond it perplexity is more than a float holds."""


def answer_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the targets that this process has of a micro-batch, fp32 at least.

    Logits are computed for the positions that have a target: for a vocabulary of 50,000 and short answers that is most
    of the memory.
    """
    (loss,) = answer_losses(model, [batch])
    return loss


def answer_losses(model: Any, batches: Sequence[Batch]) -> list[torch.Tensor]:
    """The `answer_loss` of each of several batches, in one pass through the model."""
    logits, targets = _logits(model, together(batches))
    counts = [batch.local for batch in batches]
    parts = zip(logits.split(counts), targets.split(counts), batches, strict=True)
    return [torch.stack(_sums(*part)).sum() / max(1, batch.local) for *part, batch in parts]


def _sums(logits: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
    """Summed cross-entropy of each chunk of targets."""
    exact = torch.promote_types(logits.dtype, torch.float32)
    parts = zip(logits.split(CHUNK), targets.split(CHUNK), strict=True)
    return [F.cross_entropy(some.to(exact), wanted, reduction="sum") for some, wanted in parts]


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


def validation_loss(model: Any, batches: Sequence[Batch], autocast: AbstractContextManager[object]) -> float:
    """Mean cross-entropy over all targets of all batches; the model is in evaluation mode.

    Raises:
        TrialFailure: it is not finite.
    """
    (found,) = validation_losses(model, batches, autocast)
    if isinstance(found, TrialFailure):
        raise found
    return found


@torch.no_grad()
def validation_losses(
    model: Any,
    batches: Sequence[Batch],
    autocast: AbstractContextManager[object],
    *,
    adapters: int = 1,
    tokens: int = 0,
    tell: Callable[[range, Batch], object] | None = None,
) -> list[float | TrialFailure]:
    """The `validation_loss` of each of several adapters on the same batches, or its failure.

    As many of them are asked in one pass as keep it to so many `tokens`, one at least. `tell` is told before each pass
    which adapters are asked about which batch, one behind the other.
    """
    totals, count = [0.0] * adapters, 0
    with autocast:
        for batch in batches:
            at_once = max(1, tokens // batch.ids.numel())
            for start in range(0, adapters, at_once):
                asked = range(start, min(start + at_once, adapters))
                if tell is not None:
                    tell(asked, batch)
                logits, targets = _logits(model, together([batch] * len(asked)))
                for one, *part in zip(asked, logits.split(batch.size), targets.split(batch.size), strict=True):
                    totals[one] += float(torch.stack(_sums(*part)).sum())
            count += batch.size
    return [_finite(total / count) for total in totals]


def _finite(loss: float) -> float | TrialFailure:
    if math.isfinite(loss):
        return loss
    return TrialFailure(Cause.NAN_LOSS, f"validation loss is {loss}")


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
