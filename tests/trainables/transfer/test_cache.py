"""The cache of stage 1: a hit is what training would have given, and nothing else is ever a hit."""

from __future__ import annotations

import dataclasses
import multiprocessing

import pytest
import torch

from trainables.protocol import TrialContext
from trainables.transfer.cache import Stage1Cache, key_of
from trainables.transfer.settings import Stage1Settings
from trainables.transfer.stage1 import Pretraining, Stage1Task
from trainables.transfer.synthetic import SyntheticTransfer
from trainables.two_stage import TwoStage

SMALL = SyntheticTransfer(n_stage1=200, n_stage2=80)
PARAMS = {
    "encoder_hidden_dims": "16_8", "encoder_latent_dim": 4, "lr_pretrain": 3e-3, "stage1_epochs": 6, "stage2_epochs": 3,
    "stage1_batch_size": 64,
}  # fmt: skip
FIRST = Stage1Settings.of(PARAMS)


def reports(trainer, folder, params=PARAMS, **more):
    return list(trainer.run(TrialContext(params=params, folder=folder, **more)))


@pytest.fixture
def trained(monkeypatch):
    """Counts the epochs of stage 1 that are really trained."""
    count = []
    train = Pretraining.train
    monkeypatch.setattr(Pretraining, "train", lambda self: count.append(1) or train(self))
    return count


def test_a_hit_reports_what_training_reported(tmp_path, trained):
    trainer = TwoStage(SMALL, cache=tmp_path / "cache", stage1_report_every=1)
    first = reports(trainer, tmp_path)
    assert len(trained) == 6
    second = reports(trainer, tmp_path)
    assert len(trained) == 6
    assert [(report.budget, report.metrics) for report in first] == [
        (report.budget, report.metrics) for report in second
    ]
    without = reports(dataclasses.replace(trainer, cache=None), tmp_path)
    assert [report.metrics for report in without] == [report.metrics for report in first]


def test_settings_of_stage_2_share_and_all_others_do_not(tmp_path, trained):
    trainer = TwoStage(SMALL, cache=tmp_path / "cache")
    reports(trainer, tmp_path)
    same = ({"lr_finetune": 3e-3}, {"stage2_epochs": 2}, {"freeze_encoder_stage2": False}, {"lambda_sol": 0.0})
    for setting in same:
        reports(trainer, tmp_path, PARAMS | setting, seed=5)
    assert len(trained) == 6, "a setting of stage 2, or the trial's seed, trained stage 1 again"
    for setting in (
        {"encoder_dropout": 0.3}, {"encoder_input_dropout": 0.1},
        {"weight_decay": 1e-3}, {"lr_pretrain": 1e-3}, {"use_batchnorm": True},
        {"chi_head_hidden_dim": 32}, {"chi_head_dropout": 0.0}, {"stage1_batch_size": 32}, {"stage1_patience": 7},
    ):  # fmt: skip
        before = len(trained)
        reports(trainer, tmp_path, PARAMS | setting)
        assert len(trained) == before + 6, setting
    for other in (
        TwoStage(dataclasses.replace(SMALL, seed=1), cache=tmp_path / "cache"),
        TwoStage(SMALL, cache=tmp_path / "cache", exclude_overlap=False),
        TwoStage(SMALL, cache=tmp_path / "cache", fold_seed=1),
        TwoStage(SMALL, cache=tmp_path / "cache", stage1_seed=1),
        TwoStage(SMALL, cache=tmp_path / "cache", stage1_held_out=0.2),
    ):
        before = len(trained)
        reports(other, tmp_path)
        assert len(trained) == before + 6, other


def entry():
    data = SMALL.load()
    task = Stage1Task(data.stage1_x, data.stage1_y, *TwoStage().stage1_rows(data))
    training = Pretraining(task, FIRST, 0)
    while not training.is_done():
        training.train()
    return key_of(data, task, FIRST, 0, torch.float32), training.result()


def test_the_key_looks_at_every_value_and_every_row():
    data = SMALL.load()
    task = Stage1Task(data.stage1_x, data.stage1_y, *TwoStage().stage1_rows(data))
    x, y = data.stage1_x.copy(), data.stage1_y.copy()
    x[7, 3] += 1e-3
    y[7] += 1e-9
    keys = {
        key_of(data, task, FIRST, 0, torch.float32),
        key_of(dataclasses.replace(data, stage1_x=x), task, FIRST, 0, torch.float32),
        key_of(dataclasses.replace(data, stage1_y=y), task, FIRST, 0, torch.float32),
        key_of(data, dataclasses.replace(task, train=(task.train[0][1:], *task.train[1:])), FIRST, 0, torch.float32),
        key_of(data, dataclasses.replace(task, held=(task.held[0][1:], *task.held[1:])), FIRST, 0, torch.float32),
        key_of(data, task, FIRST, 1, torch.float32),
        key_of(data, task, FIRST, 0, torch.float64),
    }
    assert len(keys) == 7


def test_what_cannot_be_read_is_trained_anew(tmp_path, trained):
    trainer = TwoStage(SMALL, cache=tmp_path / "cache")
    first = reports(trainer, tmp_path)
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    again = reports(trainer, tmp_path)
    assert len(trained) == 12 and again[-1].metrics == first[-1].metrics
    reports(trainer, tmp_path)
    assert len(trained) == 12


def test_a_folder_that_cannot_be_written_keeps_nothing_and_hurts_nobody(tmp_path):
    (tmp_path / "cache").write_text("a file in the way")
    assert reports(TwoStage(SMALL, cache=tmp_path / "cache"), tmp_path)[-1].final


def test_only_the_newest_are_kept_and_use_makes_new(tmp_path):
    cache = Stage1Cache(tmp_path, kept=3)
    _, encoders = entry()
    import os

    for age, key in enumerate("abc"):
        cache.keep(key, encoders)
        os.utime(tmp_path / f"{key}.safetensors", (1000 + age, 1000 + age))
    assert cache.find("a", 32, FIRST) is not None  # the oldest is used
    cache.keep("d", encoders)
    assert {path.stem for path in tmp_path.iterdir()} == {"a", "c", "d"}


def _keep(folder, entries, turns):
    torch.set_num_threads(1)
    cache = Stage1Cache(folder, kept=2)
    key, encoders = entries
    for turn in range(turns):
        cache.keep(f"{key}{turn % 3}", encoders)
        found = cache.find(f"{key}{turn % 3}", 32, FIRST)
        assert found is None or torch.equal(found.stack.weights, encoders.stack.weights)


def test_trials_that_run_at_once_find_whole_entries_or_none(tmp_path):
    entries = entry()
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=_keep, args=(tmp_path, entries, 30)) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
    assert [other.exitcode for other in others] == [0, 0, 0]
    assert not [path for path in tmp_path.iterdir() if ".part" in path.name]
