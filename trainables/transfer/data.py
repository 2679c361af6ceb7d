"""The two tables of a transfer problem, held against each other: rows with computed labels, and rows with measured
ones. Loads no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from trainables.fingerprints import fingerprint
from trainables.folds import folds, strata_of
from trainables.tables import Table, TableSource
from tune_lora.errors import InputError, InputErrors, nearest


@dataclass(frozen=True, eq=False)
class TransferData:
    """n computed and m measured rows of the same d features.

    Attributes:
        stage1_x: ``(n, d)`` float32.
        stage1_y: ``(n,)`` float64, computed labels.
        stage1_keys: which entity each computed row is; ``()`` where that is not known.
        x: ``(m, d)`` float32.
        y: ``(m,)`` float64, measured values.
        labels: ``(m,)`` 0 or 1, or None.
        groups: what must stay together in a fold, or None.
        keys: which entity each measured row is; ``()`` where that is not known.
        feature_names: of the d features.
        notes: what a person should know of the data.
    """

    stage1_x: np.ndarray
    stage1_y: np.ndarray
    x: np.ndarray
    y: np.ndarray
    feature_names: tuple[str, ...]
    stage1_keys: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    groups: tuple[str, ...] | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def matched(self) -> bool:
        """Whether it is known which computed rows are about the same entities as measured ones."""
        return bool(self.stage1_keys) and bool(self.keys)

    @cached_property
    def together(self) -> tuple[str, ...] | None:
        """What must stay in one fold, by measured row: groups, and entities that are measured more than once; joined
        where they share rows. None where every row stands alone."""
        if len(set(self.keys)) == len(self.keys):
            return self.groups
        return self.keys if self.groups is None else _joined(self.groups, self.keys)

    @cached_property
    def stage1_hash(self) -> str:
        """Of all that stage 1 sees."""
        digest = hashlib.sha256(repr((self.feature_names, self.stage1_x.shape, self.stage1_keys)).encode())
        for values in (self.stage1_x, self.stage1_y):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def fold_of(self, n_folds: int, seed: int) -> np.ndarray:
        """The fold of each measured row, ``(m,)``: stratified by label, else by bins of the value; groups stay
        together, and so do the rows of an entity.

        Raises:
            InputError: there are fewer groups or rows of a label than folds.
        """
        by_label = self.labels is not None
        strata = self.labels if by_label else strata_of(self.y)
        return folds(n_folds, strata=strata, groups=self.together, seed=seed, n=len(self.y), every_stratum=by_label)

    def overlap(self, rows: np.ndarray) -> np.ndarray:
        """Whether each computed row, ``(n,)``, is about the same entity as one of these measured rows."""
        tested = {self.keys[row] for row in rows}
        return np.array([key in tested for key in self.stage1_keys], dtype=bool)


@dataclass(frozen=True)
class TransferTables:
    """Where the data is read from: `stage1` is the table with computed labels, `stage2` that with measured ones."""

    stage1: TableSource
    stage2: TableSource

    def fingerprint(self) -> str:
        """Of the files."""
        labels = [table.labels.path for table in (self.stage1, self.stage2) if table.labels is not None]
        return fingerprint([], [self.stage1.path, self.stage2.path, *labels])

    def load(self) -> TransferData:
        """Reads both.

        Raises:
            InputErrors: everything that is wrong with either.
        """
        from trainables.tables import read

        tables, mistakes = [], []
        for name, source in (("stage1", self.stage1), ("stage2", self.stage2)):
            try:
                tables.append(read(source))
            except InputErrors as errors:
                mistakes += [f"{name}: {mistake}" for mistake in errors.mistakes]
            except InputError as error:
                mistakes.append(f"{name}: {error}")
        if mistakes:
            raise InputErrors(mistakes)
        return from_tables(*tables)


def from_tables(stage1: Table, stage2: Table) -> TransferData:
    """Puts two tables together, the features of the first in the order of the second.

    Raises:
        InputErrors: a table has no target of numbers, or they have other features.
    """
    mistakes = [*_target_mistakes("stage1", stage1), *_target_mistakes("stage2", stage2)]
    mistakes += _feature_mistakes(stage1.names, stage2.names)
    if mistakes:
        raise InputErrors(mistakes)
    order = [stage1.names.index(name) for name in stage2.names]
    notes = [f"{name}: {note}" for name, table in (("stage1", stage1), ("stage2", stage2)) for note in table.notes]
    assert stage1.target is not None  # no mistake was found
    assert stage2.target is not None
    return TransferData(
        stage1_x=stage1.features[:, order],
        stage1_y=stage1.target,
        stage1_keys=stage1.keys,
        x=stage2.features,
        y=stage2.target,
        labels=stage2.labels,
        groups=stage2.groups,
        keys=stage2.keys,
        feature_names=stage2.names,
        notes=tuple(notes),
    )


def _target_mistakes(name: str, table: Table) -> list[str]:
    if table.target is None:
        return [f"{name}: target is missing; must be the column of numbers that is learned"]
    if table.target.dtype == object:
        return [f"{name}: target holds classes; must be a column of numbers"]
    return []


def _feature_mistakes(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Every feature that one table has and the other lacks, one line each."""
    found = []
    for owner, mine, other, theirs in (("stage1", first, "stage2", second), ("stage2", second, "stage1", first)):
        lacking = [name for name in mine if name not in set(theirs)]
        found += [
            f"{owner}: feature {name!r} is missing in {other}; both must have the same: {nearest(name, theirs)}"
            for name in lacking[:5]
        ]
        if len(lacking) > 5:
            found.append(f"{owner}: {len(lacking) - 5} more features are missing in {other}")
    return found


def _joined(groups: Sequence[str], keys: Sequence[str]) -> tuple[str, ...]:
    """Groups that share an entity are one, called as one of them; without such, they are what they were."""
    within = {group: group for group in groups}

    def whole(group: str) -> str:
        while within[group] != group:
            group = within[group]
        return group

    first: dict[str, str] = {}
    for group, key in zip(groups, keys, strict=True):
        within[whole(group)] = whole(first.setdefault(key, group))
    return tuple(whole(group) for group in groups)


def held_out(keys: Sequence[str], n: int, share: float, seed: int) -> np.ndarray:
    """Which of n rows are held out, ``(n,)`` booleans: about a share of them, whole entities where there are keys.

    Raises:
        InputError: too few rows or entities to hold some out and train on others.
    """
    names = list(keys) if keys else [str(row) for row in range(n)]
    entities = list(dict.fromkeys(names))
    if len(entities) < 2:
        raise InputError(f"got {len(entities)} different rows; must be 2 at least, one to train on and one held out")
    order = np.random.default_rng([seed, 11]).permutation(len(entities))
    count = min(len(entities) - 1, max(1, round(share * len(entities))))
    chosen = {entities[index] for index in order[:count]}
    return np.array([name in chosen for name in names], dtype=bool)
