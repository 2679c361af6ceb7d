"""What a person is told of the two tables before the first trial. Loads no torch."""

from __future__ import annotations

from collections import Counter

import numpy as np

from trainables.transfer.data import TransferData


def notes(data: TransferData, *, exclude_overlap: bool) -> list[str]:
    """Sizes, what was left out and why, which rows are of one entity, and what is excluded from stage 1."""
    again = sum(count > 1 for count in Counter(data.keys).values())
    repeated = [f"{again} entities are measured more than once; their rows are in one fold"] if again else []
    return [_sizes(data), *data.notes, *repeated, *_overlap(data, exclude_overlap)]


def _sizes(data: TransferData) -> str:
    rows, width = data.x.shape
    said = [f"{len(data.stage1_y)} computed and {rows} measured rows of {width} features"]
    if data.groups is not None:
        said.append(f"{len(set(data.groups))} groups")
    if data.labels is not None:
        said.append(f"{int(data.labels.sum())} rows with label 1")
    return "; ".join(said)


def _overlap(data: TransferData, excluded: bool) -> list[str]:
    if not data.matched:
        said = (
            "neither table says which entity a row is, so exclude_overlap excludes nothing: name the columns that do "
            "as `key` in both"
        )
        return [said] if excluded else []
    count = int(data.overlap(np.arange(len(data.y))).sum())
    told = f"{count} of {len(data.stage1_y)} computed rows are about measured entities"
    if not excluded:
        return [f"{told}; stage 1 sees them (exclude_overlap: false)" if count else told]
    if not count:
        return [
            f"{told}, so exclude_overlap excludes nothing; where they are about the same ones, `key` must be spelled "
            "alike in both tables"
        ]
    return [f"{told}; stage 1 does not see those that a fold tests"]
