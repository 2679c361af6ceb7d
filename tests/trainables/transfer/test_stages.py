"""Both stages: folds together and alone in double precision, what early stopping keeps, and that nothing leaks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from trainables.transfer.data import held_out
from trainables.transfer.folding import Folding
from trainables.transfer.judging import ScoreWeights
from trainables.transfer.settings import Stage1Settings, Stage2Settings
from trainables.transfer.stage1 import Pretraining, Stage1Task, predicted
from trainables.transfer.stage2 import Stage2Task, Transfer
from trainables.transfer.synthetic import SyntheticTransfer
from trainables.two_stage import TwoStage

PROBLEM = SyntheticTransfer(n_stage1=200, n_stage2=83, n_groups=9)
FIRST = Stage1Settings((16, 8), 4, epochs=5, batch_size=64, rate=3e-3)
SECOND = Stage2Settings(epochs=4, batch_size=16)


@pytest.fixture(scope="module")
def data():
    return PROBLEM.load()


def pretrained(data, *, per_fold: bool, settings=FIRST, dtype=torch.float64):
    rows = TwoStage(exclude_overlap=per_fold).stage1_rows(data)
    training = Pretraining(Stage1Task(data.stage1_x, data.stage1_y, *rows), settings, 0, dtype)
    while not training.is_done():
        training.train()
    return training.result()


def folding(data, settings=SECOND):
    return Folding(data.x, data.y, data.labels, data.fold_of(5, 0), 5, settings, ScoreWeights(), seed=1)


@pytest.mark.parametrize("per_fold", [False, True])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("sees", [False, True])
def test_folds_together_equal_folds_alone_in_double_precision(data, per_fold, norm, frozen, sees):
    encoders = pretrained(data, per_fold=per_fold, settings=dataclasses.replace(FIRST, norm=norm, input_dropout=0.1))
    run = folding(data, dataclasses.replace(SECOND, frozen=frozen, sees_prediction=sees))
    assert len({int((data.fold_of(5, 0) == fold).sum()) for fold in range(5)}) > 1, "all folds have the same size"
    wanted = {fold: frozenset({2}) for fold in range(5)}
    together = run.train(encoders, range(5), wanted)
    for fold in range(5):
        (alone,) = run.train(encoders, [fold], wanted)
        assert alone.keys() == together[fold].keys() == {2, 4}
        for epoch, metrics in alone.items():
            assert metrics == pytest.approx(together[fold][epoch], rel=1e-9, abs=1e-9)


def test_stage_1_lanes_equal_a_lane_alone(data):
    train, held = TwoStage().stage1_rows(data)
    assert len(train) == 5
    together = pretrained(data, per_fold=True)
    for lane in (0, 3):
        training = Pretraining(
            Stage1Task(data.stage1_x, data.stage1_y, (train[lane],), (held[lane],)), FIRST, 0, torch.float64
        )
        while not training.is_done():
            training.train()
        alone = training.result()
        torch.testing.assert_close(alone.stack.weights[0], together.stack.weights[lane], rtol=1e-9, atol=1e-9)
        assert alone.maes[0] == pytest.approx(together.maes[lane], rel=1e-9)


def test_lanes_that_stop_early_at_different_times_each_keep_their_best(data):
    settings = dataclasses.replace(FIRST, epochs=60, patience=2, rate=2e-2)
    _, held = TwoStage().stage1_rows(data)
    encoders = pretrained(data, per_fold=True, settings=settings)
    x = torch.from_numpy(data.stage1_x).double()
    told = predicted(encoders.stack, encoders.inputs, encoders.target, x, held)
    for lane, rows in enumerate(held):
        assert np.abs(told[lane] - data.stage1_y[rows]).mean() == pytest.approx(encoders.maes[lane], rel=1e-9)
    assert len(encoders.curve) < 60


# --- leaks: what is changed where nobody may look must change nothing; the same change elsewhere does ----------------


def weights_of_fold(data, fold: int, encoders, settings=SECOND):
    """Everything that fold's training made: weights and scales."""
    task = Stage2Task.of_folds(data.x, data.y, data.labels, data.fold_of(5, 0), [fold])
    transfer = Transfer(task, encoders, settings, seed=1)
    for _ in range(settings.epochs):
        transfer.train()
    parts = (transfer.stack.weights, transfer.latents.mean, transfer.latents.scale, transfer.target.mean)
    return torch.cat([part.ravel() for part in (*parts, transfer.target.scale)])


def spoilt(data, rows):
    """The same with other features, values and labels in these measured rows."""
    x, y, labels = data.x.copy(), data.y.copy(), data.labels.copy()
    x[rows], y[rows], labels[rows] = x[rows] * 3 + 5, y[rows] * 7 - 50, 1 - labels[rows]
    return dataclasses.replace(data, x=x, y=y, labels=labels)


@pytest.mark.parametrize("frozen", [True, False])
def test_training_of_a_fold_never_sees_its_test_rows(data, frozen):
    settings = dataclasses.replace(SECOND, frozen=frozen, sees_prediction=True)
    encoders = pretrained(data, per_fold=False)
    fold_of = data.fold_of(5, 0)
    clean = weights_of_fold(data, 2, encoders, settings)
    tested, trained = np.flatnonzero(fold_of == 2), np.flatnonzero(fold_of != 2)
    same = dataclasses.replace(Frozen(spoilt(data, tested), fold_of))
    assert torch.equal(clean, weights_of_fold(same, 2, encoders, settings))
    other = Frozen(spoilt(data, trained[:1]), fold_of)
    assert not torch.equal(clean, weights_of_fold(other, 2, encoders, settings))


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Data whose folds are as they were: strata are made of labels, which have been spoilt."""

    data: object
    kept: np.ndarray

    def __getattr__(self, name):
        return getattr(object.__getattribute__(self, "data"), name)

    def fold_of(self, n_folds, seed):
        return self.kept


def test_the_scale_of_stage_1_is_that_of_its_training_rows(data):
    train, held = TwoStage(exclude_overlap=False).stage1_rows(data)
    clean = pretrained(data, per_fold=False)
    y, x = data.stage1_y.copy(), data.stage1_x.copy()
    y[held[0]], x[held[0]] = 1e3, 1e3
    planted = pretrained(dataclasses.replace(data, stage1_y=y, stage1_x=x), per_fold=False)
    for first, second in ((clean.inputs, planted.inputs), (clean.target, planted.target)):
        assert torch.equal(first.mean, second.mean) and torch.equal(first.scale, second.scale)
    y[train[0][0]] = 1e3
    assert not torch.equal(
        clean.target.mean, pretrained(dataclasses.replace(data, stage1_y=y), per_fold=False).target.mean
    )


def test_with_overlap_excluded_stage_1_of_a_fold_never_sees_its_test_entities(data):
    fold_of = data.fold_of(5, 0)
    clean = pretrained(data, per_fold=True)
    hidden = data.overlap(np.flatnonzero(fold_of == 1))
    assert hidden.any() and not hidden.all()
    y = data.stage1_y.copy()
    y[hidden] += 100
    planted = pretrained(dataclasses.replace(data, stage1_y=y), per_fold=True)
    assert torch.equal(clean.stack.weights[1], planted.stack.weights[1])
    assert clean.maes[1] == planted.maes[1], "early stopping or the error looked at the excluded rows"
    assert not torch.equal(clean.stack.weights[0], planted.stack.weights[0])


def test_without_keys_or_without_overlap_stage_1_is_trained_once(data):
    assert len(TwoStage().stage1_rows(dataclasses.replace(data, keys=(), stage1_keys=()))[0]) == 1
    apart = dataclasses.replace(data, keys=tuple(f"other {row}" for row in range(len(data.y))))
    assert len(TwoStage().stage1_rows(apart)[0]) == 1
    assert len(TwoStage(final=True).stage1_rows(data)[0]) == 1


def test_rows_of_one_entity_are_held_out_together():
    keys = [f"pair {row // 3}" for row in range(90)]
    held = held_out(keys, 90, 0.2, seed=4)
    assert held.sum() == 18
    assert all(len(set(held[row : row + 3])) == 1 for row in range(0, 90, 3))


def test_a_fold_whose_encoder_is_broken_fails_alone(data):
    encoders = pretrained(data, per_fold=True)
    clean = folding(data).train(encoders, range(5), {})
    encoders.stack.weights[2] = torch.nan
    broken = folding(data).train(encoders, range(5), {})
    assert "fold 3 of 5" in str(broken[2])
    for fold in (0, 1, 3, 4):
        assert broken[fold] == clean[fold]
