"""Rows, packing and micro-batches: what one optimizer step is shown. A function of seed and step alone."""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from trainables.lora.text.tokens import Tokens

IGNORED = -100
Row = tuple[Tokens, ...]
"""Examples that stand one behind the other in one row of a batch; without packing, one."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch. `ids`, `positions` and `targets` are (rows, length).

    Positions start at 0 with each example, which is how the model knows that examples in one row do not see each other.
    A target is the next token of the same example where that is learnt, else -100. `size` counts the targets and
    `tokens` what is not padding, of the whole micro-batch; `local` the targets that this process has of it.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    size: int
    tokens: int
    local: int

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        if device == self.ids.device:
            return self
        ids, positions, targets = (
            tensor.to(device, non_blocking=True) for tensor in (self.ids, self.positions, self.targets)
        )
        return replace(self, ids=ids, positions=positions, targets=targets)


def collate(rows: Sequence[Row], pad: int, *, rank: int = 0, processes: int = 1) -> Batch:
    """A micro-batch of rows, or what process `rank` of several has of it. Padding stands behind, where causal attention
    never looks at it."""
    size = sum(int(tokens.learnt[1:].sum()) for row in rows for tokens in row)
    whole = sum(len(tokens) for row in rows for tokens in row)
    rows = rows[rank::processes]
    length = max((sum(map(len, row)) for row in rows), default=0)
    ids = np.full((len(rows), length), pad, dtype=np.int64)
    positions = np.tile(np.arange(length, dtype=np.int64), (len(rows), 1))
    targets = np.full((len(rows), length), IGNORED, dtype=np.int64)
    for index, row in enumerate(rows):
        start = 0
        for tokens in row:
            stop = start + len(tokens)
            ids[index, start:stop] = tokens.ids
            positions[index, start:stop] = np.arange(len(tokens))
            targets[index, start : stop - 1] = np.where(tokens.learnt[1:], tokens.ids[1:], IGNORED)
            start = stop
        if len(row) > 1:  # behind packed examples padding is an example of its own
            positions[index, start:] = np.arange(length - start)
    tensors = (torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(targets))
    return Batch(*tensors, size, whole, int((targets != IGNORED).sum()))


def together(batches: Sequence[Batch]) -> Batch:
    """The rows of several batches as one, each padded behind to the longest. What is added goes on counting positions
    from the last, as padding behind a single example does; nothing looks at it."""
    if len(batches) == 1:
        return batches[0]
    length = max(batch.ids.shape[1] for batch in batches)
    ids, positions, targets = (
        torch.cat(parts) for parts in zip(*(_widened(one, length) for one in batches), strict=True)
    )
    counts = (sum(values) for values in zip(*((one.size, one.tokens, one.local) for one in batches), strict=True))
    return Batch(ids, positions, targets, *counts)


def _widened(batch: Batch, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    more = length - batch.ids.shape[1]
    if not more:
        return batch.ids, batch.positions, batch.targets
    counted = batch.positions[:, -1:] + torch.arange(1, more + 1, device=batch.positions.device)
    return (
        torch.cat([batch.ids, batch.ids[:, -1:].expand(-1, more)], 1),
        torch.cat([batch.positions, counted], 1),
        F.pad(batch.targets, (0, more), value=IGNORED),
    )


def pack(examples: Sequence[Tokens], length: int) -> list[Row]:
    """Rows of at most `length` tokens that hold every example once: best fit, the longest first."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for index in sorted(range(len(examples)), key=lambda index: (-len(examples[index]), index)):
        needed = len(examples[index])
        place = bisect_left(room, (needed, -1))
        if place == len(room):
            rows.append([index])
            insort(room, (length - needed, len(rows) - 1))
            continue
        left, row = room.pop(place)
        rows[row].append(index)
        insort(room, (left - needed, row))
    return [tuple(examples[index] for index in sorted(row)) for row in rows]


@dataclass(frozen=True)
class Plan:
    """How rows become optimizer steps: `batch_size` rows a micro-batch, `accumulation` micro-batches a step. Of several
    `processes` that train together each has every so many-th row of a micro-batch, from its `rank` on."""

    rows: Sequence[Row]
    batch_size: int
    accumulation: int
    seed: int
    pad: int
    rank: int = 0
    processes: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch; the last may be smaller."""
        return steps_per_epoch(len(self.rows), self.batch_size * self.accumulation)

    def step(self, number: int) -> list[Batch]:
        """The micro-batches of optimizer step `number`, from 1. Each epoch has an order of its own."""
        epoch, index = divmod(number - 1, self.steps_per_epoch)
        order = list(range(len(self.rows)))
        random.Random(f"{self.seed}:{epoch}").shuffle(order)
        size = self.batch_size * self.accumulation
        chosen = [self.rows[row] for row in order[index * size : (index + 1) * size]]
        parts = [chosen[start : start + self.batch_size] for start in range(0, len(chosen), self.batch_size)]
        return [collate(part, self.pad, rank=self.rank, processes=self.processes) for part in parts]


def steps_per_epoch(rows: int, effective_batch_size: int) -> int:
    """Optimizer steps of one epoch."""
    return -(-rows // effective_batch_size)


def evaluation_batches(examples: Sequence[Tokens], pad: int, tokens_each: int) -> list[Batch]:
    """Every example once, similar lengths together, about `tokens_each` tokens a batch with its padding."""
    batches: list[Batch] = []
    waiting: list[Row] = []
    for tokens in sorted(examples, key=lambda tokens: (len(tokens), tokens.ids.tobytes())):
        if waiting and len(tokens) * (len(waiting) + 1) > tokens_each:
            batches.append(collate(waiting, pad))
            waiting = []
        waiting.append((tokens,))
    return [*batches, collate(waiting, pad)] if waiting else batches
