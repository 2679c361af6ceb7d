"""Two tables against each other, the synthetic problem's known answer, and the real tables where they are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from trainables.protocol import TrialContext
from trainables.tables import LabelSource, SmilesColumn, Table, TableSource
from trainables.transfer.data import TransferTables, from_tables
from trainables.transfer.judging import ScoreWeights, of_labels, of_values, score
from trainables.transfer.settings import Stage1Settings, Stage2Settings
from trainables.transfer.stage1 import Pretraining, Stage1Task
from trainables.transfer.stage2 import Stage2Task, Transfer
from trainables.transfer.synthetic import BEST, SyntheticTransfer
from trainables.two_stage import TwoStage
from tune_lora.errors import InputError, InputErrors


def table(names, n=6, target=True):
    features = np.arange(n * len(names), dtype=np.float32).reshape(n, -1)
    y = np.linspace(0, 1, n) if target else None
    return Table(features, tuple(names), y, None, None, (), np.arange(n))


def test_features_are_matched_by_name():
    first, second = table(["b", "a"]), table(["a", "b"])
    found = from_tables(first, second)
    assert found.feature_names == ("a", "b")
    np.testing.assert_array_equal(found.stage1_x, first.features[:, ::-1])


def test_features_that_differ_are_one_line_each_with_the_nearest():
    with pytest.raises(InputErrors) as caught:
        from_tables(table(["weight", "old"]), table(["weihgt", "old"], target=False))
    text = str(caught.value)
    assert "stage2: target is missing" in text
    assert "stage1: feature 'weight' is missing in stage2" in text and "did you mean 'weihgt'?" in text
    assert len(caught.value.mistakes) == 3


def test_both_tables_are_read_before_anything_is_said(tmp_path):
    sources = TransferTables(TableSource(tmp_path / "one.csv"), TableSource(tmp_path / "two.csv"))
    with pytest.raises(InputErrors) as caught:
        sources.load()
    assert "one.csv" in caught.value.mistakes[0] and "two.csv" in caught.value.mistakes[1]


def test_a_fold_that_takes_all_computed_rows_away_is_one_line():
    data = SyntheticTransfer(n_stage1=40, n_stage2=40).load()
    measured = ("one",) * 8 + tuple(f"another {row}" for row in range(32))
    same = dataclasses.replace(data, stage1_keys=("one",) * 40, keys=measured, groups=None)
    with pytest.raises(InputError, match="must be 2 at least"):
        TwoStage().stage1_rows(same)
    two = dataclasses.replace(same, stage1_keys=("one",) * 39 + ("other",))
    with pytest.raises(InputError, match=r"exclude_overlap: fold \d leaves (0|1) computed rows to train on and (0|1)"):
        TwoStage().stage1_rows(two)


def test_the_score_is_the_documented_formula():
    metrics = {"exp_mae": 0.4, "sol_f1": 0.7, "sol_recall": 0.9, "stage1_mae": 0.3}
    assert score(metrics, ScoreWeights()) == pytest.approx(1.5 * 0.4 + 2.0 * 0.3 + 1.5 * 0.1 + 0.1 * 0.3)
    assert score(metrics, ScoreWeights(0, 0, 1, 0)) == pytest.approx(0.1)


def test_measures_are_scikit_learns():
    from sklearn import metrics

    draw = np.random.default_rng(0)
    told, true = draw.normal(size=50), draw.normal(size=50)
    found = of_values(told, true)
    assert found["exp_mae"] == pytest.approx(metrics.mean_absolute_error(true, told))
    assert found["exp_rmse"] == pytest.approx(metrics.root_mean_squared_error(true, told))
    assert found["exp_r2"] == pytest.approx(metrics.r2_score(true, told))
    labels = of_labels(told > 0.3, true > 0)
    assert labels["sol_f1"] == pytest.approx(metrics.f1_score(true > 0, told > 0.3))
    assert labels["sol_recall"] == pytest.approx(metrics.recall_score(true > 0, told > 0.3))


def test_measures_without_anything_to_measure():
    nothing = np.zeros(4, dtype=bool)
    assert of_labels(nothing, nothing) == {"sol_f1": 1.0, "sol_recall": 1.0, "sol_accuracy": 1.0}
    assert of_labels(~nothing, nothing)["sol_f1"] == 0.0
    assert "exp_r2" not in of_values(np.ones(3), np.ones(3))


def test_a_problem_is_its_seed_and_fresh_rows_are_of_the_same_one():
    first, again, other = SyntheticTransfer(seed=3).load(), SyntheticTransfer(seed=3).load(), SyntheticTransfer().load()
    np.testing.assert_array_equal(first.y, again.y)
    assert not np.array_equal(first.y, other.y)
    problem = SyntheticTransfer(seed=3, n_stage2=4000, noise2=0.0)
    x, y, _ = problem.fresh(4000, seed=0)
    data = problem.load()
    assert not {tuple(row) for row in x.round(4)} & {tuple(row) for row in data.x.round(4)}
    fits = [np.linalg.lstsq(rows, values, rcond=None)[0] for rows, values in ((x, y), (data.x, data.y))]
    np.testing.assert_allclose(fits[0], fits[1], atol=0.12)


def fresh_error(problem, settings):
    """Error on new rows of a transfer with these stage-1 settings."""
    data = problem.load()
    rows = TwoStage(problem, exclude_overlap=False).stage1_rows(data)
    training = Pretraining(Stage1Task(data.stage1_x, data.stage1_y, *rows), settings, seed=9)
    while not training.is_done():
        training.train()
    x, y, labels = problem.fresh(2000, seed=1)
    n = len(data.y)
    task = Stage2Task(
        np.concatenate([data.x, x]), np.concatenate([data.y, y]), np.concatenate([data.labels, labels]),
        (0,), (np.arange(n),), (np.arange(n, n + len(y)),),
    )  # fmt: skip
    transfer = Transfer(task, training.result(), Stage2Settings(), seed=9)
    for _ in range(20):
        transfer.train()
    return transfer.measure()[0]["exp_mae"], training.result().stage1_mae


def test_the_best_region_is_where_it_was_put():
    inside, outside = [], []
    for seed in range(4):
        problem = SyntheticTransfer(seed=seed)
        wide = Stage1Settings((128, 64), BEST["encoder_latent_dim"], decay=0.01, rate=2e-3, epochs=60)
        inside.append(fresh_error(problem, wide)[0])
        outside.append(
            min(
                fresh_error(problem, dataclasses.replace(wide, latent=4))[0],
                fresh_error(problem, dataclasses.replace(wide, decay=10.0, rate=8e-3))[0],
            )
        )
    assert sum(one < other for one, other in zip(inside, outside, strict=True)) >= 3
    assert np.mean(inside) < np.mean(outside)


CHI = (SmilesColumn("ps_pair", "_", ("polymer", "solvent"), "descriptors", per_atom=True),)


def test_the_real_tables_make_a_transfer_problem(data, tmp_path):
    pytest.importorskip("rdkit")
    folder = data / "chi"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    labels = LabelSource(folder / "data_PI.csv", "soluble", ("ps_pair",))
    tables = TransferTables(
        TableSource(folder / "data_COSMO.csv", ("temp",), "chi", smiles=CHI),
        TableSource(folder / "data_Chi.csv", ("temp",), "chi", group="polymer_class", smiles=CHI, labels=labels),
    )
    found = tables.load()
    assert (len(found.stage1_y), len(found.y)) == (1206, 1190)
    trainer = TwoStage(tables)
    fold_of = found.fold_of(5, 0)
    classes = [{found.groups[row] for row in np.flatnonzero(fold_of == fold)} for fold in range(5)]
    assert sum(map(len, classes)) == len(set.union(*classes)), "a polymer class is in two folds"
    train, held = trainer.stage1_rows(found)
    for fold in range(5):
        tested = {found.keys[row] for row in np.flatnonzero(fold_of == fold)}
        assert not tested & {found.stage1_keys[row] for row in (*train[fold], *held[fold])}
    params = {"encoder_hidden_dims": "32", "encoder_latent_dim": 16, "lr_pretrain": 1e-3, "stage1_epochs": 3,
              "stage2_epochs": 2}  # fmt: skip
    *_, last = trainer.run(TrialContext(params=params, folder=tmp_path, shared={f"transfer data: {tables!r}": found}))
    assert last.final and 0 < last.metrics["exp_mae"] < 2
