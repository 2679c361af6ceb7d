"""Which rows of a table are tested together: the folds of a cross-validation, made once per study. Pure NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tune_lora.errors import InputError

_ORDERS = 200
"""In which groups are placed before it is given up."""


def folds(
    n_folds: int,
    *,
    strata: Sequence[Any] | np.ndarray | None = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    seed: int,
    n: int,
    every_stratum: bool = True,
) -> np.ndarray:
    """The fold of each row, ``(n,)`` whole numbers from 0 below `n_folds`; the same arguments give the same folds.

    Without groups each stratum is dealt out evenly: its rows in two folds differ by one at most, and so do the sizes of
    the folds. With groups no group is in two folds; sizes differ by the rows of the largest group at most, and within
    that the strata are spread as evenly as a greedy choice, largest group first, can (as scikit-learn's
    ``StratifiedGroupKFold`` does, which however promises nothing about sizes).

    Args:
        n_folds: from 2.
        strata: class of each row, or a bin of its number (`strata_of`); None is one stratum.
        groups: what must stay together, by row.
        seed: the study's, never a trial's.
        n: number of rows.
        every_stratum: a stratum must be among the training rows of every fold: right for classes. False for bins of
            a number, which a model can do without.

    Raises:
        InputError: there are fewer rows, groups or rows of a class than folds, or groups cannot be cut so that every
            class is trained on.
        ValueError: `strata` or `groups` is not of length `n`.
    """
    codes = _codes("strata", strata, n)
    generator = np.random.default_rng(seed)
    _must_fill("rows", n, n_folds)
    if groups is None:
        if every_stratum and strata is not None:
            _must_fill_each(codes, strata, n_folds)
        return _dealt(codes, n_folds, generator)
    members = _codes("groups", groups, n)
    _must_fill("groups", int(members.max()) + 1, n_folds)
    if every_stratum and strata is not None:
        _must_be_in_two_groups(codes, members, strata, groups)
    return _grouped(codes, members, n_folds, generator, apart=every_stratum and strata is not None)


def strata_of(values: Sequence[float] | np.ndarray, bins: int = 10, least: int = 5) -> np.ndarray:
    """Quantile bins of a number, ``(n,)`` whole numbers from 0, to stratify by a continuous target.

    Equal values are in one bin, and a bin holds `least` rows at least (where there are that many), so there may be
    fewer than `bins`.
    """
    values = np.asarray(values, dtype=np.float64)
    wanted = max(1, min(bins, len(values) // max(1, least)))
    edges = np.unique(np.quantile(values, np.arange(1, wanted) / wanted)) if wanted > 1 else np.empty(0)
    bin_of = np.searchsorted(edges, values, side="right")
    counts = np.bincount(bin_of, minlength=len(edges) + 1)
    return _joined(counts, least)[bin_of]


def _joined(counts: np.ndarray, least: int) -> np.ndarray:
    """A new number for each bin, neighbours joined until each has `least` rows."""
    joined, number, held = np.zeros(len(counts), dtype=np.int64), 0, 0
    for old, count in enumerate(counts):
        joined[old] = number
        held += int(count)
        if held >= least:
            number, held = number + 1, 0
    if held and number:
        joined[joined == number] = number - 1
    return joined


def _codes(name: str, values: Sequence[Any] | np.ndarray | None, n: int) -> np.ndarray:
    if values is None:
        return np.zeros(n, dtype=np.int64)
    if len(values) != n:
        raise ValueError(f"{name} has {len(values)} values for {n} rows")
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in np.asarray(values).tolist()], dtype=np.int64)


def _must_fill(what: str, count: int, n_folds: int) -> None:
    if n_folds < 2:
        raise InputError(f"n_folds: got {n_folds}; must be a whole number from 2")
    if count < n_folds:
        raise InputError(f"n_folds: got {n_folds} for {count} {what}; must be at most the number of {what}")


def _must_fill_each(codes: np.ndarray, strata: Sequence[Any] | np.ndarray, n_folds: int) -> None:
    for code, count in enumerate(np.bincount(codes)):
        if count < n_folds:
            name = strata[int(np.argmax(codes == code))]
            raise InputError(
                f"n_folds: got {n_folds}, but class {str(name)!r} has {count} row{'s' if count > 1 else ''}; "
                "every class must have as many rows as there are folds"
            )


def _must_be_in_two_groups(
    codes: np.ndarray, members: np.ndarray, strata: Sequence[Any] | np.ndarray, groups: Sequence[Any] | np.ndarray
) -> None:
    for code in range(int(codes.max()) + 1):
        row = int(np.argmax(codes == code))
        if len(np.unique(members[codes == code])) < 2:
            raise InputError(
                f"class {str(strata[row])!r} is found in group {str(groups[row])!r} only; every class must be in two "
                "groups at least, or no model could learn it where that group is tested"
            )


def _dealt(codes: np.ndarray, n_folds: int, generator: np.random.Generator) -> np.ndarray:
    """Strata shuffled, laid end to end and dealt like cards."""
    order = generator.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    fold_of = np.empty(len(codes), dtype=np.int64)
    fold_of[order] = np.arange(len(codes)) % n_folds
    return fold_of


def _grouped(
    codes: np.ndarray, members: np.ndarray, n_folds: int, generator: np.random.Generator, apart: bool
) -> np.ndarray:
    """Groups placed the largest first, and should that leave a class whole in a fold, in other orders."""
    table = np.zeros((int(members.max()) + 1, int(codes.max()) + 1))  # rows of each group in each stratum
    np.add.at(table, (members, codes), 1)
    order = generator.permutation(len(table))
    order = order[np.argsort(-table.sum(axis=1)[order], kind="stable")]
    for _ in range(_ORDERS):
        fold_of_group = _placed(table, order, n_folds, apart)
        if fold_of_group is not None:
            return fold_of_group[members]
        order = generator.permutation(len(table))
    raise InputError(
        f"n_folds: got {n_folds}; no way was found to keep every class among the training rows of every fold and "
        "groups whole; must be more folds, or the classes in more groups"
    )


def _placed(table: np.ndarray, order: np.ndarray, n_folds: int, apart: bool) -> np.ndarray | None:
    """The fold of each group, each placed where it evens the strata most; None where a stratum would end up whole in
    one fold and must not."""
    sizes, totals = table.sum(axis=1), table.sum(axis=0)
    held, left = np.zeros((n_folds, table.shape[1])), totals.copy()
    fold_of_group = np.empty(len(table), dtype=np.int64)
    for group in order:
        left -= table[group]
        load = held.sum(axis=1)
        may = load + sizes[group] <= load.min() + sizes.max()
        if apart:
            may &= ~_would_be_whole(held, table[group], left)
        if not may.any():
            return None
        fold = _most_even(may, held, table[group], totals)
        fold_of_group[group] = fold
        held[fold] += table[group]
    return fold_of_group


def _would_be_whole(held: np.ndarray, group: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The folds that would hold all rows of a stratum with this group, the last that has any of it."""
    last = (group > 0) & (left == 0)
    elsewhere = held.sum(axis=0) - held
    return (last & (elsewhere == 0)).any(axis=1)


def _most_even(may: np.ndarray, held: np.ndarray, group: np.ndarray, totals: np.ndarray) -> int:
    """The allowed fold where a group adds least to the sum of squared shares, of each stratum and of all rows."""
    before = (held / totals) ** 2
    after = ((held + group) / totals) ** 2
    load, size, n = held.sum(axis=1), group.sum(), totals.sum()
    cost = (after - before).mean(axis=1) + ((load + size) / n) ** 2 - (load / n) ** 2
    return int(np.argmin(np.where(may, cost, np.inf)))
