"""Which rows are learnt from and which are judged by: one hold-out, or folds. Pure NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainables.aggregation import Aggregation
from trainables.classification.data import Examples
from trainables.folds import folds


@dataclass(frozen=True)
class Folds:
    """The folds of a study: the same for all its trials."""

    n_folds: int = 5
    aggregation: Aggregation = "mean"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Split:
    """Rows by number. `inner` are held out of the training rows for early stopping, where the judged rows may not be
    looked at; empty otherwise."""

    train: np.ndarray
    validation: np.ndarray
    inner: np.ndarray


_NONE = np.empty(0, dtype=np.int64)


def held_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """``(n,)`` bool: a share of the rows, of each class as many as its share is, rounded down or up.

    A class with two rows keeps one at least, for `share` up to a half.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    place = np.arange(1, len(labels) + 1)
    taken = np.floor(place * share + 0.5) > np.floor((place - 1) * share + 0.5)
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[order] = taken
    return chosen


def held_out_groups(labels: np.ndarray, groups: Sequence[str], share: float, seed: int) -> np.ndarray:
    """``(n,)`` bool: whole groups, together about a share of the rows. A group that alone holds a class is learnt from;
    where every group does, or is all there is, a share of the rows is taken instead."""
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    rows = np.zeros((len(names), int(labels.max()) + 1), dtype=np.int64)
    np.add.at(rows, (member, labels), 1)
    left, sizes, wanted = rows.sum(axis=0), rows.sum(axis=1), share * len(labels)

    def is_spared(group: int) -> bool:
        return bool(np.all((left > rows[group]) | (rows[group] == 0)))

    order = [int(group) for group in np.random.default_rng(seed).permutation(len(names))]
    taken: list[int] = []
    for group in order:
        held = int(sizes[taken].sum())
        if is_spared(group) and abs(held + sizes[group] - wanted) < abs(held - wanted):
            taken.append(group)
            left = left - rows[group]
    if not taken:  # each is more than twice as large as it should be
        taken = sorted((group for group in order if is_spared(group)), key=lambda group: int(sizes[group]))[:1]
    return np.isin(member, taken) if taken else held_out(labels, share, seed)


def one_split(examples: Examples, share: float, *, grouped: bool = False, seed: int = 0) -> Split:
    """The validation set that came with the data, else a stratified share; with `grouped` of whole groups."""
    if examples.for_validation.any():
        apart = examples.for_validation
    elif grouped and examples.groups is not None:
        count = max(2, round(1 / share))
        apart = folds(count, strata=examples.labels, groups=examples.groups, seed=seed, n=len(examples)) == 0
    else:
        apart = held_out(examples.labels, share, seed)
    return Split(np.flatnonzero(~apart), np.flatnonzero(apart), _NONE)


def fold_splits(examples: Examples, asked: Folds, *, grouped: bool, inner_share: float | None) -> list[Split]:
    """One split a fold, in order. With `inner_share` that share of a fold's training rows is held out: stratified, or
    with `grouped` by whole groups.

    Raises:
        InputError: there are fewer rows of a class, or groups, than folds.
    """
    groups = examples.groups if grouped else None
    fold_of = folds(asked.n_folds, strata=examples.labels, groups=groups, seed=asked.seed, n=len(examples))
    splits = []
    for fold in range(asked.n_folds):
        train, validation = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        inner = _NONE
        if inner_share is not None:
            labels, seed = examples.labels[train], asked.seed + fold
            if groups is None:
                apart = held_out(labels, inner_share, seed)
            else:
                apart = held_out_groups(labels, [groups[row] for row in train], inner_share, seed)
            train, inner = train[~apart], train[apart]
        splits.append(Split(train, validation, inner))
    return splits
