"""What a person is told of two tables before the first trial, and which rows are of one entity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.protocol import Preparing, TrialContext
from trainables.tables import TableSource
from trainables.transfer.data import TransferData, TransferTables
from trainables.transfer.synthetic import SyntheticTransfer
from trainables.two_stage import TwoStage
from tune_lora.errors import InputError


def written(path: Path, names: Sequence[str], x: Sequence[object]) -> Path:
    """A table of 40 rows or so: entity, feature, value."""
    rows = [f"{name},{one},{index % 7}" for index, (name, one) in enumerate(zip(names, x, strict=True))]
    path.write_text("\n".join(["name,a,y", *rows]) + "\n")
    return path


def tables(
    folder: Path,
    computed: Sequence[str],
    measured: Sequence[str],
    keys: tuple[str, str] = ("name", "name"),
    bad: int = 0,
    **more: object,
) -> TransferTables:
    """Two files; `bad` measured rows hold no number."""
    x = [*["none"] * bad, *range(bad, len(measured))]
    one = written(folder / "computed.csv", computed, range(len(computed)))
    two = written(folder / "measured.csv", measured, x)
    named = [(key,) if key else () for key in keys]
    return TransferTables(
        TableSource(one, ("a",), "y", key=named[0]),
        TableSource(two, ("a",), "y", key=named[1], on_bad="drop", **more),  # type: ignore[arg-type]  # of a test
    )


def said(source: TransferTables, tmp_path: Path, **more: object) -> list[str]:
    trainer = TwoStage(source, **more)  # type: ignore[arg-type]  # keyword arguments of a test
    assert isinstance(trainer, Preparing)
    found = trainer.prepare(TrialContext(params={}, folder=tmp_path))
    assert (found["baseline"], found["images"]) == ({}, {})
    assert set(found["calibration"]) == {"data"}
    return list(found["calibration"]["data"])


def names(n: int, of: str = "e") -> list[str]:
    return [f"{of}{index}" for index in range(n)]


def test_sizes_and_rows_that_are_left_out_are_told(tmp_path: Path) -> None:
    lines = said(tables(tmp_path, names(50), names(40), bad=10), tmp_path)
    assert lines[0] == "50 computed and 30 measured rows of 1 features"
    (left_out,) = [line for line in lines if "left out" in line]
    assert left_out.startswith("stage2: ") and "measured.csv" in left_out and "10" in left_out


def test_groups_and_labels_are_counted(tmp_path: Path) -> None:
    lines = said(SyntheticTransfer(n_stage1=100, n_stage2=40), tmp_path)  # type: ignore[arg-type]  # a source, too
    assert lines[0].startswith("100 computed and 40 measured rows of 32 features; 20 groups; ")
    assert lines[0].endswith(" rows with label 1")


def test_computed_rows_of_measured_entities_are_counted(tmp_path: Path) -> None:
    source = tables(tmp_path, names(50) + names(5), names(40))
    (line,) = [line for line in said(source, tmp_path) if "entities" in line]
    assert line == "45 of 55 computed rows are about measured entities; stage 1 does not see those that a fold tests"
    (line,) = [line for line in said(source, tmp_path, exclude_overlap=False) if "entities" in line]
    assert line == "45 of 55 computed rows are about measured entities; stage 1 sees them (exclude_overlap: false)"


def test_keys_that_never_match_are_told(tmp_path: Path) -> None:
    lines = said(tables(tmp_path, names(50), names(40, of="E")), tmp_path)
    assert (
        "0 of 50 computed rows are about measured entities, so exclude_overlap excludes nothing; where they are about "
        "the same ones, `key` must be spelled alike in both tables" in lines
    )


def test_without_keys_it_is_told_that_nothing_can_be_excluded(tmp_path: Path) -> None:
    source = tables(tmp_path, names(50), names(40), keys=("", ""))
    (line,) = [line for line in said(source, tmp_path) if "exclude_overlap" in line]
    assert line == (
        "neither table says which entity a row is, so exclude_overlap excludes nothing: name the columns that do as "
        "`key` in both"
    )
    assert not [line for line in said(source, tmp_path, exclude_overlap=False) if "exclude_overlap" in line]


@pytest.mark.parametrize(("keys", "lacking", "other"), [(("name", ""), 2, 1), (("", "name"), 1, 2)])
def test_a_key_in_one_table_alone_is_a_mistake(tmp_path: Path, keys: tuple[str, str], lacking: int, other: int) -> None:
    source = tables(tmp_path, names(50), names(40), keys=keys)
    with pytest.raises(InputError) as caught:
        TwoStage(source).check_data()
    assert str(caught.value) == (
        f"stage{lacking}.key is missing, but stage{other} says which entity a row is; must be named in both tables, or "
        "exclude_overlap false"
    )
    TwoStage(source, exclude_overlap=False).check_data()


def test_a_fold_that_leaves_stage_1_nothing_is_told_before_the_first_trial(tmp_path: Path) -> None:
    source = tables(tmp_path, ["one"] * 20 + ["other"] * 20, ["one", "other"] * 10 + names(20))
    with pytest.raises(InputError, match=r"exclude_overlap: fold \d leaves 20 computed rows to train on and 0"):
        TwoStage(source).check_data()


def test_entities_that_are_measured_again_are_told_and_in_one_fold(tmp_path: Path) -> None:
    source = tables(tmp_path, names(50), [name for name in names(20) for _ in range(4)])
    lines = said(source, tmp_path)
    assert "20 entities are measured more than once; their rows are in one fold" in lines
    data = source.load()
    assert folds_of(data.keys, data.fold_of(5, 0)) == {1}
    assert np.bincount(data.fold_of(5, 0)).tolist() == [16] * 5


def folds_of(values: Sequence[str], fold_of: np.ndarray) -> set[int]:
    """In how many folds a value is found."""
    found = defaultdict(set)
    for value, fold in zip(values, fold_of.tolist(), strict=True):
        found[value].add(fold)
    return {len(folds) for folds in found.values()}


def drawn(keys: Sequence[str], groups: Sequence[str] | None) -> TransferData:
    n = len(keys)
    x, y = np.zeros((n, 1), dtype=np.float32), np.arange(n, dtype=np.float64)
    return TransferData(x, y, x, y, ("a",), keys=tuple(keys), groups=None if groups is None else tuple(groups))


@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=20, max_size=80),
    grouped=st.booleans(),
    seed=st.integers(0, 99),
)
def test_neither_an_entity_nor_a_group_is_ever_in_two_folds(
    rows: list[tuple[int, int]], grouped: bool, seed: int
) -> None:
    keys, groups = ([str(one) for one in column] for column in zip(*rows, strict=True))
    data = drawn(keys, groups if grouped else None)
    if data.together is not None and len(set(data.together)) < 3:
        with pytest.raises(InputError, match="groups"):
            data.fold_of(3, seed)
        return
    fold_of = data.fold_of(3, seed)
    assert folds_of(keys, fold_of) == {1}
    assert not grouped or folds_of(groups, fold_of) == {1}


def test_folds_of_groups_whose_entities_are_in_one_group_are_those_of_the_groups() -> None:
    groups = [str(row % 11) for row in range(88)]
    repeated = [str(row % 44) for row in range(88)]
    unique = [str(row) for row in range(88)]
    np.testing.assert_array_equal(drawn(repeated, groups).fold_of(5, 3), drawn(unique, groups).fold_of(5, 3))


def test_rows_without_entities_are_dealt_out_one_by_one() -> None:
    assert drawn([str(row) for row in range(40)], None).together is None
