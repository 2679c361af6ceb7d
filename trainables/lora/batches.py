"""Which images are trained together: each as often as its repeats, a batch out of one bucket."""

from __future__ import annotations

import random
from collections import Counter

from trainables.lora.buckets import Size
from trainables.lora.dataset import Dataset


def epoch_batches(data: Dataset, batch_size: int, rng: random.Random) -> list[list[int]]:
    """The batches of one epoch as rows of ``data.train``, in an order that follows from `rng` alone.

    Only the last batch of a bucket may be smaller than `batch_size`.
    """
    order = [row for row, image in enumerate(data.train) for _ in range(image.repeats)]
    rng.shuffle(order)
    rows: dict[Size, list[int]] = {}
    for row in order:
        rows.setdefault(data.train[row].target, []).append(row)
    batches = [part[start : start + batch_size] for part in rows.values() for start in range(0, len(part), batch_size)]
    if len(rows) > 1:  # else bucket would follow bucket
        rng.shuffle(batches)
    return batches


def batches_per_epoch(data: Dataset, batch_size: int) -> int:
    """How many batches `epoch_batches` gives."""
    counts: Counter[Size] = Counter()
    for image in data.train:
        counts[image.target] += image.repeats
    return sum(-(-count // batch_size) for count in counts.values())
