"""Folds: what they promise of any strata, groups and seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from trainables.folds import folds, strata_of
from tune_lora.errors import InputError

SEEDS = st.integers(0, 2**32 - 1)
COUNTS = st.integers(2, 6)


def sizes(fold_of: np.ndarray, n_folds: int) -> np.ndarray:
    return np.bincount(fold_of, minlength=n_folds)


@st.composite
def classes(draw: st.DrawFn, n_folds: int) -> list[str]:
    """The classes of some rows, each with as many rows as there are folds at least, in any order."""
    counts = draw(st.lists(st.integers(n_folds, 20), min_size=1, max_size=4))
    return draw(st.permutations([f"class {i}" for i, count in enumerate(counts) for _ in range(count)]))


@st.composite
def grouped(draw: st.DrawFn) -> tuple[int, list[str], list[int]]:
    """Folds, and the class and group of some rows."""
    n_folds = draw(COUNTS)
    rows = draw(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, n_folds + 4)), min_size=n_folds, max_size=80))
    strata, groups = [one for one, _ in rows], [group for _, group in rows]
    assume(len(set(groups)) >= n_folds)
    return n_folds, strata, groups


@given(st.data(), COUNTS, SEEDS)
def test_strata_and_sizes_differ_by_one_row_at_most(data: st.DataObject, n_folds: int, seed: int) -> None:
    strata = data.draw(classes(n_folds))
    fold_of = folds(n_folds, strata=strata, seed=seed, n=len(strata))
    assert np.ptp(sizes(fold_of, n_folds)) <= 1
    for one in set(strata):
        held = sizes(fold_of[np.array(strata) == one], n_folds)
        assert np.ptp(held) <= 1
        assert held.sum() == strata.count(one)


@given(COUNTS, st.integers(0, 60), SEEDS)
def test_rows_without_strata_are_dealt_evenly(n_folds: int, more: int, seed: int) -> None:
    n = n_folds + more
    fold_of = folds(n_folds, seed=seed, n=n)
    assert fold_of.shape == (n,) and set(fold_of.tolist()) == set(range(n_folds))
    assert np.ptp(sizes(fold_of, n_folds)) <= 1


@given(grouped(), SEEDS)
def test_no_group_is_in_two_folds_and_sizes_are_as_even_as_the_largest_group(
    case: tuple[int, list[str], list[int]], seed: int
) -> None:
    n_folds, strata, groups = case
    fold_of = folds(n_folds, strata=strata, groups=groups, seed=seed, n=len(groups), every_stratum=False)
    for group in set(groups):
        assert len(set(fold_of[np.array(groups) == group].tolist())) == 1
    assert set(fold_of.tolist()) == set(range(n_folds)), "an empty fold tests nothing"
    assert np.ptp(sizes(fold_of, n_folds)) <= max(Counter(groups).values())


@given(grouped(), SEEDS)
@example((2, ["a", "a", "b", "b"], [0, 1, 2, 3]), 0)
@example((2, ["a", "b", "a", "b"], [0, 0, 1, 1]), 0)
def test_every_class_is_among_the_training_rows_of_every_fold(
    case: tuple[int, list[str], list[int]], seed: int
) -> None:
    n_folds, strata, groups = case
    assume(all(len({g for s, g in zip(strata, groups, strict=True) if s == one}) >= 2 for one in set(strata)))
    fold_of = folds(n_folds, strata=strata, groups=groups, seed=seed, n=len(groups))
    for fold in range(n_folds):
        assert set(np.array(strata)[fold_of != fold]) == set(strata)


@given(grouped(), SEEDS)
def test_the_same_seed_gives_the_same_folds_whatever_the_names(
    case: tuple[int, list[str], list[int]], seed: int
) -> None:
    n_folds, strata, groups = case
    np.random.seed(seed % 1000)  # noqa: NPY002 - the state that must not matter
    first = folds(n_folds, strata=strata, groups=groups, seed=seed, n=len(groups), every_stratum=False)
    np.random.seed(1)  # noqa: NPY002
    renamed = [f"group of {group}" for group in groups]
    again = folds(n_folds, strata=np.array(strata), groups=renamed, seed=seed, n=len(groups), every_stratum=False)
    assert first.tolist() == again.tolist()


def test_another_seed_gives_other_folds() -> None:
    assert folds(5, seed=0, n=100).tolist() != folds(5, seed=1, n=100).tolist()


def test_strata_are_spread_over_the_folds_of_groups() -> None:
    groups = np.repeat(np.arange(40), 5)
    strata = np.repeat([0, 1, 1, 1], 50)  # groups 0 to 9 are of class 0, 10 of 40
    fold_of = folds(5, strata=strata, groups=groups, seed=0, n=200)
    assert sizes(fold_of, 5).tolist() == [40] * 5
    assert sizes(fold_of[strata == 0], 5).tolist() == [10] * 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n_folds": 1, "n": 9}, "n_folds: got 1; must be a whole number from 2"),
        ({"n_folds": 5, "n": 3}, "n_folds: got 5 for 3 rows; must be at most the number of rows"),
        (
            {"n_folds": 3, "n": 6, "groups": list("aabbbb")},
            "n_folds: got 3 for 2 groups; must be at most the number of groups",
        ),
        (
            {"n_folds": 3, "n": 6, "strata": list("aabbbb")},
            "n_folds: got 3, but class 'a' has 2 rows; every class must have as many rows as there are folds",
        ),
        (
            {"n_folds": 2, "n": 6, "strata": list("aabbbb"), "groups": list("xxyyzz")},
            "class 'a' is found in group 'x' only; every class must be in two groups at least, or no model could learn "
            "it where that group is tested",
        ),
        (
            {"n_folds": 2, "n": 6, "strata": list("abbcca"), "groups": list("xxyyzz")},
            "n_folds: got 2; no way was found to keep every class among the training rows of every fold and groups "
            "whole; must be more folds, or the classes in more groups",
        ),
    ],
)
def test_what_cannot_be_cut_is_said_in_one_line(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as error:
        folds(seed=0, **arguments)  # type: ignore[arg-type]  # a table of keyword arguments
    assert str(error.value) == said


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200) | st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.integers(1, 12),
    st.integers(1, 8),
)
def test_bins_of_a_number_are_in_order_and_hold_enough(values: list[float], bins: int, least: int) -> None:
    strata = strata_of(values, bins, least)
    order = np.argsort(values, kind="stable")
    assert np.all(np.diff(strata[order]) >= 0), "a larger value is in no lower bin"
    assert len({(value, bin_) for value, bin_ in zip(values, strata.tolist(), strict=True)}) == len(set(values))
    counts = np.bincount(strata)
    assert len(counts) <= bins
    assert counts.min() >= min(least, len(values))


def test_different_numbers_are_cut_into_even_bins() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    assert np.bincount(strata_of(values)).tolist() == [100] * 10
