"""The two-stage trainer: the contract in each of its forms, its reports, restarts and failures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.contracts.trainer import TrainerContract
from trainables.protocol import Cause, TrialContext, TrialFailure
from trainables.transfer.synthetic import SyntheticTransfer
from trainables.two_stage import METRICS, TwoStage

SMALL = SyntheticTransfer(n_stage1=200, n_stage2=80)
PARAMS = {
    "encoder_hidden_dims": "16_8",
    "encoder_latent_dim": 4,
    "lr_pretrain": 3e-3,
    "stage1_epochs": 6,
    "stage1_batch_size": 64,
    "stage2_epochs": 3,
    "stage2_final_epochs": 12,
    "stage2_batch_size": 32,
}


class _Contract(TrainerContract):
    tolerance = 0.0  # the same form of training gives the same bits

    @pytest.fixture
    def params(self):
        return dict(PARAMS)


class TestBatched(_Contract):
    @pytest.fixture
    def trainer(self):
        return TwoStage(SMALL, stage1_report_every=2, folds="batched")


class TestSequential(_Contract):
    @pytest.fixture
    def trainer(self):
        return TwoStage(SMALL, stage1_report_every=2, folds="sequential")


class TestFineTunedWithBatchNorm(_Contract):
    @pytest.fixture
    def trainer(self):
        return TwoStage(SMALL, stage1_report_every=2, exclude_overlap=False)

    @pytest.fixture
    def params(self):
        return PARAMS | {"freeze_encoder_stage2": False, "use_batchnorm": True, "stage2_sees_prediction": True}


class TestCached(_Contract):
    @pytest.fixture
    def trainer(self, tmp_path_factory):
        return TwoStage(SMALL, stage1_report_every=2, cache=tmp_path_factory.mktemp("cache"))


class TestFinal(_Contract):
    @pytest.fixture
    def trainer(self):
        return TwoStage(SMALL, stage1_report_every=2, final=True)


def reports(trainer, tmp_path, params=PARAMS, **more):
    return list(trainer.run(TrialContext(params=params, folder=tmp_path, seed=3, **more)))


def test_each_fold_is_a_report_with_what_pruners_and_tables_want(tmp_path):
    found = reports(TwoStage(SMALL, stage1_report_every=2), tmp_path)
    assert [report.budget for report in found] == [2, 4, 6, 9, 12, 15, 18, 21]
    assert set(found[0].metrics) == {"stage1_mae", "val_loss", "train_loss"}
    final = found[-1].metrics
    assert set(METRICS) <= final.keys()
    scores = [final[f"fold_{fold}_score"] for fold in range(1, 6)]
    assert [report.metrics["fold_score"] for report in found[3:]] == scores
    assert found[5].metrics["score"] == pytest.approx(np.mean(scores[:3]))
    assert final["score"] == pytest.approx(np.mean(scores))
    assert final["score_spread"] == pytest.approx(np.std(scores, ddof=1))


def test_the_score_is_the_formula_in_every_fold(tmp_path):
    final = reports(TwoStage(SMALL), tmp_path)[-1].metrics
    for fold in range(1, 6):
        mae, f1, recall, first = (
            final[f"fold_{fold}_{name}"] for name in ("exp_mae", "sol_f1", "sol_recall", "stage1_mae")
        )
        assert final[f"fold_{fold}_score"] == pytest.approx(1.5 * mae + 2 * (1 - f1) + 1.5 * (1 - recall) + 0.1 * first)


def test_without_labels_the_score_has_two_terms(tmp_path):
    final = reports(TwoStage(Unlabelled()), tmp_path)[-1].metrics
    assert not [name for name in final if "sol_" in name]
    assert final["score"] == pytest.approx(1.5 * final["exp_mae"] + 0.1 * final["stage1_mae"])


class Unlabelled:
    def load(self):
        return dataclasses.replace(SMALL.load(), labels=None)


@pytest.mark.parametrize("together", ["batched", "blocks"])
def test_folds_side_by_side_are_what_they_are_one_after_the_other(tmp_path, together):
    batched = reports(TwoStage(SMALL, folds=together), tmp_path)
    sequential = reports(TwoStage(SMALL, folds="sequential"), tmp_path)
    for first, second in zip(batched, sequential, strict=True):
        assert first.metrics == pytest.approx(second.metrics, rel=1e-4)


def test_after_early_stopping_who_decides_is_told_the_kept_value_and_the_horizon_stands(tmp_path):
    params = PARAMS | {"stage1_epochs": 60, "stage1_patience": 2, "lr_pretrain": 0.02}
    found = reports(TwoStage(SMALL, exclude_overlap=False, stage1_report_every=1), tmp_path, params, decide_at={59})
    stage1 = [report for report in found if report.budget <= 60]
    trained = [report.budget for report in stage1 if report.budget < 59]
    assert trained == list(range(1, len(trained) + 1)) and len(trained) < 50
    assert [report.budget for report in stage1[-2:]] == [59, 60]
    kept = min(report.metrics["stage1_mae"] for report in stage1)
    assert stage1[-1].metrics["stage1_mae"] == stage1[-2].metrics["stage1_mae"] == kept
    assert found[-1].budget == 60 + 5 * 3


@pytest.mark.parametrize("folds", ["batched", "blocks", "sequential"])
@pytest.mark.parametrize("stop_at", [1, 3, 6, 8, 9, 14])
def test_a_trial_continues_exactly_from_any_report(tmp_path, folds, stop_at):
    trainer = TwoStage(SMALL, folds=folds, stage1_report_every=1)
    asked = {"decide_at": frozenset(range(1, 22))}
    whole = reports(trainer, tmp_path, **asked)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    running = trainer.run(TrialContext(params=PARAMS, folder=tmp_path, seed=3, **asked))
    for report in running:
        if report.budget == stop_at:
            report.save(checkpoint)
            break
    running.close()
    rest = reports(trainer, tmp_path, restore=checkpoint, **asked)
    assert [report.budget for report in rest] == list(range(stop_at + 1, 22))
    for first, second in zip(whole[stop_at:], rest, strict=True):
        assert first.metrics == second.metrics, "to the last bit"


def test_a_restored_trial_does_not_train_a_finished_fold_again(tmp_path, monkeypatch):
    from trainables.transfer.folding import Folding

    trainer, trained = TwoStage(SMALL, folds="sequential"), []
    train = Folding.train
    monkeypatch.setattr(
        Folding,
        "train",
        lambda self, encoders, folds, wanted: trained.extend(folds) or train(self, encoders, folds, wanted),
    )
    running = trainer.run(TrialContext(params=PARAMS, folder=tmp_path, seed=3))
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    next(report for report in running if report.budget == 12).save(checkpoint)
    running.close()
    trained.clear()
    reports(trainer, tmp_path, restore=checkpoint)
    assert trained == [2, 3, 4]


class WithNan:
    def load(self):
        data = SMALL.load()
        y = data.y.copy()
        y[np.flatnonzero(data.fold_of(5, 0) == 0)[0]] = np.nan
        return dataclasses.replace(data, y=y)


@pytest.mark.parametrize("folds", ["batched", "sequential"])
def test_a_failed_fold_is_a_failed_trial_that_says_which(tmp_path, folds):
    running = TwoStage(WithNan(), folds=folds).run(TrialContext(params=PARAMS, folder=tmp_path))
    with pytest.raises(TrialFailure, match="fold 1 of 5") as caught:
        list(running)
    assert caught.value.cause is Cause.NAN_LOSS


def test_stage_1_that_diverges_is_a_named_failure(tmp_path):
    with pytest.raises(TrialFailure, match="stage 1") as caught:
        reports(TwoStage(SMALL), tmp_path, PARAMS | {"lr_pretrain": 1e30})
    assert caught.value.cause is Cause.NAN_LOSS


def test_time_up_is_a_cause(tmp_path):
    with pytest.raises(TrialFailure) as caught:
        reports(TwoStage(SMALL, trial_timeout_seconds=0.0), tmp_path)
    assert caught.value.cause is Cause.TRIAL_TIMEOUT


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"encoder_hidden_dims": 512}, "joined by"),
        ({"encoder_hidden_dims": "512-256"}, "joined by"),
        ({"encoder_dropout": 1.0}, "below 1"),
        ({"stage2_epochs": 0}, "whole number from 1"),
        ({"freeze_encoder_stage2": "yes"}, "true or false"),
        ({"class_weight_pos": 0}, "above 0"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(setting, said):
    (mistake,) = TwoStage().check(PARAMS | setting)
    assert next(iter(setting)) in mistake and said in mistake


@pytest.mark.parametrize(("folds", "trained"), [("batched", [5]), ("blocks", [2, 3]), ("sequential", [1] * 5)])
def test_folds_are_trained_in_the_blocks_that_were_asked_for(tmp_path, monkeypatch, folds, trained):
    from trainables.transfer.folding import Folding

    sizes, train = [], Folding.train
    monkeypatch.setattr(Folding, "train", lambda self, e, f, w: sizes.append(len(f)) or train(self, e, f, w))
    reports(TwoStage(SMALL, folds=folds), tmp_path)
    assert sizes == trained


def test_auto_waits_for_who_decides_between_folds(tmp_path, monkeypatch):
    from trainables.transfer.folding import Folding

    sizes, train = [], Folding.train
    monkeypatch.setattr(Folding, "train", lambda self, e, f, w: sizes.append(len(f)) or train(self, e, f, w))
    reports(TwoStage(SMALL), tmp_path, decide_at=frozenset({3, 6}))
    assert sizes == [5], "nobody decides between folds"
    reports(TwoStage(SMALL), tmp_path, decide_at=frozenset({9}))
    assert sizes == [5, 1, 1, 1, 1, 1]


def test_what_was_reported_is_in_tensorboard_once_also_after_a_restart(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = TwoStage(SMALL, stage1_report_every=2)
    running = trainer.run(TrialContext(params=PARAMS, folder=tmp_path, seed=3))
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    next(report for report in running if report.budget == 9).save(checkpoint)
    next(running)  # a report that was lost with its worker
    running.close()
    rest = reports(trainer, tmp_path, restore=checkpoint)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [point.step for point in events.Scalars("stage1_mae")] == [2, 4, 6, 9, 12, 15, 18, 21]
    assert events.Scalars("score")[-1].value == pytest.approx(rest[-1].metrics["score"])
