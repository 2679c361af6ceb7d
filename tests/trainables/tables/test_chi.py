"""The real tables (MTL_ChiParameter) are read whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rdkit", reason='RDKit is not installed: pip install "tune-lora[chem]"')

from trainables.folds import folds, strata_of
from trainables.tables import LabelSource, SmilesColumn, Table, TableSource, read

PAIR = SmilesColumn("ps_pair", split="_", parts=("polymer", "solvent"), per_atom=True)


@pytest.fixture(scope="module")
def chi(data: Path) -> Path:
    folder = data / "chi"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


@pytest.fixture
def tables(chi: Path) -> tuple[Table, Table]:
    computed = TableSource(chi / "data_COSMO.csv", ("temp",), "chi", group="polymer_class", smiles=(PAIR,))
    labels = LabelSource(chi / "data_PI.csv", "soluble", ("ps_pair", "polymer_class"))
    measured = TableSource(chi / "data_Chi.csv", ("temp",), "chi", group="polymer_class", smiles=(PAIR,), labels=labels)
    return read(computed), read(measured)


def test_every_row_is_read(tables: tuple[Table, Table]) -> None:
    computed, measured = tables
    assert (len(computed), len(measured)) == (1206, 1190)
    assert computed.names == measured.names
    assert np.isfinite(computed.features).all() and np.isfinite(measured.features).all()
    assert len(set(computed.keys)) == 761 and set(computed.keys) <= set(measured.keys)
    assert measured.target is not None and measured.labels is not None
    np.testing.assert_array_equal(measured.labels, measured.target < 0.5)  # as its README says


def test_rows_without_a_class_are_one_group_and_that_is_said(tables: tuple[Table, Table]) -> None:
    _, measured = tables
    assert measured.groups is not None and measured.groups.count("") == 134
    assert any("134 rows have no group; they are one group" in note for note in measured.notes)


def test_no_polymer_class_is_in_two_folds(tables: tuple[Table, Table]) -> None:
    _, measured = tables
    assert measured.target is not None and measured.groups is not None
    fold_of = folds(5, strata=strata_of(measured.target), groups=measured.groups, seed=0, n=1190, every_stratum=False)
    assert len(set(zip(measured.groups, fold_of.tolist(), strict=True))) == len(set(measured.groups))
    assert np.bincount(fold_of).min() > 150
