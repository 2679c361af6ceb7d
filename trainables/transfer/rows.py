"""Who sees which rows: the only place where rows of the two stages are held against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trainables.transfer.data import TransferData, held_out
from tune_lora.errors import InputError

if TYPE_CHECKING:
    from trainables.two_stage import TwoStage

Rows = tuple[np.ndarray, ...]


def stage1_rows(trainer: TwoStage, data: TransferData) -> tuple[Rows, Rows]:
    """Which computed rows stage 1 trains on and is judged by, for each of its lanes.

    One lane, unless the rows of each fold's test entities are excluded: then one a fold. The model that is trained at
    the end excludes nothing.

    Raises:
        InputError: one table alone says which entities its rows are, or a fold excludes all rows of either kind.
    """
    if trainer.exclude_overlap:
        _entities_in_both(data)
    held = held_out(data.stage1_keys, len(data.stage1_y), trainer.stage1_held_out, trainer.fold_seed)
    if trainer.final or not (trainer.exclude_overlap and data.matched):
        return (np.flatnonzero(~held),), (np.flatnonzero(held),)
    fold_of = data.fold_of(trainer.n_folds, trainer.fold_seed)
    outside = [~data.overlap(np.flatnonzero(fold_of == fold)) for fold in range(trainer.n_folds)]
    if all(allowed.all() for allowed in outside):
        return (np.flatnonzero(~held),), (np.flatnonzero(held),)
    train = tuple(np.flatnonzero(~held & allowed) for allowed in outside)
    judged = tuple(np.flatnonzero(held & allowed) for allowed in outside)
    for fold, (mine, others) in enumerate(zip(train, judged, strict=True), start=1):
        if not len(mine) or not len(others):
            raise InputError(
                f"exclude_overlap: fold {fold} leaves {len(mine)} computed rows to train on and {len(others)} to judge "
                "by; both must be 1 at least, or exclude_overlap false"
            )
    return train, judged


def final_rows(trainer: TwoStage, data: TransferData) -> tuple[np.ndarray, np.ndarray]:
    """Measured rows that the final model trains on, and those it stops early by; groups and entities stay together.

    Raises:
        InputError: there are too few.
    """
    together = data.together if data.together is not None else data.keys
    if len(set(together)) < 10:  # a tenth of so few groups is none, and one would be too much
        together = data.keys
    held = held_out(together, len(data.y), trainer.final_held_out, trainer.fold_seed)
    return np.flatnonzero(~held), np.flatnonzero(held)


def _entities_in_both(data: TransferData) -> None:
    named = {"stage1": bool(data.stage1_keys), "stage2": bool(data.keys)}
    if named["stage1"] == named["stage2"]:
        return
    lacking, other = sorted(named, key=lambda stage: named[stage])
    raise InputError(
        f"{lacking}.key is missing, but {other} says which entity a row is; must be named in both tables, or "
        "exclude_overlap false"
    )
