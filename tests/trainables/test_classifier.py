"""The classifier trainer keeps the contract of trainers for each kind of data, and with folds."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.contracts.trainer import TrainerContract
from tests.trainables.classification.makers import write_images, write_table
from trainables.classification.source import DataSource
from trainables.classification.split import Folds
from trainables.classifier import MEASURED_BY_CLOCK, Classifier
from trainables.protocol import Trainer

IMAGE_PARAMS = {"lr": 0.01, "max_epochs": 2, "batch_size": 8, "widths": "4_8", "image_size": 16}
TABLE_PARAMS = {"optimizer.lr": 0.01, "training.epochs": 3, "training.batch_size": 8, "model.hidden": "8"}


class ClassifierContract(TrainerContract):
    by_clock = frozenset(MEASURED_BY_CLOCK)

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory):
        return tmp_path_factory.mktemp("data")


class TestImages(ClassifierContract):
    @pytest.fixture
    def trainer(self, folder) -> Trainer:
        return Classifier(DataSource(write_images(folder / "images")))

    @pytest.fixture
    def params(self) -> dict[str, Any]:
        return dict(IMAGE_PARAMS)


class TestImagesWithTexts(ClassifierContract):
    """With everything on: anchors, group-robust training over the modalities, a schedule, two rates."""

    @pytest.fixture
    def trainer(self, folder) -> Trainer:
        return Classifier(DataSource(write_images(folder / "images"), text="text"))

    @pytest.fixture
    def params(self) -> dict[str, Any]:
        rates = {"lr_backbone": 0.003, "lr_new": 0.01, "lr_schedule": "cosine"}
        groups = {"groupdro_enabled": True, "groupdro_warmup_epochs": 0, "text_encoder": "char_cnn"}
        shared = {name: value for name, value in IMAGE_PARAMS.items() if name != "lr"}
        return {**shared, **rates, **groups, "latent_dim": 8, "lambda_fit": 0.01, "lambda_sep": 0.01}


class TestTexts(ClassifierContract):
    @pytest.fixture
    def trainer(self, folder) -> Trainer:
        return Classifier(DataSource(write_images(folder / "images"), kind="text", text="text"))

    @pytest.fixture
    def params(self) -> dict[str, Any]:
        return {"lr": 0.01, "max_epochs": 2, "batch_size": 8, "text_encoder": "transformer", "text_length": 24}


class TestTables(ClassifierContract):
    @pytest.fixture
    def trainer(self, folder) -> Trainer:
        return Classifier(DataSource(write_table(folder / "table.csv"), group="site"))

    @pytest.fixture
    def params(self) -> dict[str, Any]:
        return {**TABLE_PARAMS, "groupdro.enabled": True, "groupdro.warmup_epochs": 1}


class TestTablesInFolds(ClassifierContract):
    @pytest.fixture
    def trainer(self, folder) -> Trainer:
        return Classifier(DataSource(write_table(folder / "table.csv")), folds=Folds(3))

    @pytest.fixture
    def params(self) -> dict[str, Any]:
        return dict(TABLE_PARAMS)


class TestTablesInFoldsStoppedEarly(ClassifierContract):
    """Early stopping ends trainings long before their horizon."""

    @pytest.fixture
    def trainer(self, folder) -> Trainer:
        return Classifier(
            DataSource(write_table(folder / "table.csv")), folds=Folds(2, "pessimistic"), objective="val_loss"
        )

    @pytest.fixture
    def params(self) -> dict[str, Any]:
        return {**TABLE_PARAMS, "optimizer.lr": 0.1, "training.epochs": 12, "training.early_stopping": 1}

    def test_a_restored_trial_continues_exactly_from_the_middle_of_a_fold(
        self, trainer, params, context, tmp_path, shared
    ):
        asked = dataclasses.replace(context, decide_at=frozenset({2, 14}))
        whole = list(trainer.run(asked))
        assert [report.budget for report in whole] == [2, 12, 14, 24]
        for place in (0, 1, 2):
            running = trainer.run(asked)
            for _ in range(place + 1):
                report = next(running)
            saved = tmp_path / f"saved{place}"
            saved.mkdir()
            report.save(saved)
            running.close()
            rest = list(trainer.run(dataclasses.replace(asked, restore=saved)))
            assert [report.budget for report in rest] == [report.budget for report in whole[place + 1 :]]
            for first, second in zip(whole[place + 1 :], rest, strict=True):
                self.assert_same(first, second)
