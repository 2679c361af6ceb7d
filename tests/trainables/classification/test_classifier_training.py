"""Training: exact restarts for every optimizer and schedule, early stopping, causes, logs, and what is exported."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tests.trainables.classification.makers import write_images, write_table
from trainables.classification import backbones, export, pixels
from trainables.classification.data import read
from trainables.classification.inputs import encoded, recipe
from trainables.classification.making import Making
from trainables.classification.settings import chosen
from trainables.classification.source import DataSource
from trainables.classification.split import Folds, one_split
from trainables.classifier import Classifier
from trainables.epoch_log import EpochLog
from trainables.protocol import Cause, TrialContext, TrialFailure
from tune_lora.errors import InputError

PARAMS = {"lr": 0.02, "max_epochs": 4, "batch_size": 16, "hidden": "8"}
IMAGES = {"lr": 0.01, "max_epochs": 2, "batch_size": 8, "widths": "4_8", "image_size": 16}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "table.csv")


def trial(trainer: Classifier, params: dict[str, Any], folder: Path, **more: Any) -> list[Any]:
    folder.mkdir(parents=True, exist_ok=True)
    assert trainer.check(params) == []
    return list(trainer.run(TrialContext(params=params, folder=folder, **{"seed": 1, **more})))


def values(report: Any) -> dict[str, float]:
    return {name: value for name, value in report.metrics.items() if name != "seconds"}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["none", "step", "linear", "cosine", "plateau"])
def test_a_restored_trial_is_the_uninterrupted_one(table, tmp_path, optimizer, schedule) -> None:
    more = {"optimizer": optimizer, "lr_schedule": schedule, "step_size": 2, "lr_patience": 0, "early_stopping": 3}
    trainer, params = Classifier(DataSource(table)), {**PARAMS, **more}
    whole = trial(trainer, params, tmp_path / "whole")
    running = trainer.run(TrialContext(params=params, folder=tmp_path, seed=1))
    next(running)
    report = next(running)
    saved = tmp_path / "saved"
    saved.mkdir()
    report.save(saved)
    running.close()
    rest = trial(trainer, params, tmp_path / "rest", restore=saved)
    assert [one.budget for one in rest] == [one.budget for one in whole[2:]]
    for one, other in zip(whole[2:], rest, strict=True):
        assert values(other) == pytest.approx(values(one), rel=1e-6)


def test_it_learns_and_a_table_needs_its_scaler(table, tmp_path) -> None:
    last = trial(Classifier(DataSource(table)), {**PARAMS, "max_epochs": 20}, tmp_path / "a")[-1]
    assert last.metrics["val_acc"] >= 0.8
    lines = table.read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    table.write_text("\n".join([lines[0], *(",".join([str(1e4 * float(row[0]) + 5e5), *row[1:]]) for row in rows)]))
    far = trial(Classifier(DataSource(table)), {**PARAMS, "max_epochs": 20}, tmp_path / "b")[-1]
    assert far.metrics["val_acc"] == pytest.approx(last.metrics["val_acc"], abs=0.1)


def test_early_stopping_keeps_the_best_epoch_and_tells_it_wherever_somebody_decides(table, tmp_path) -> None:
    params = {**PARAMS, "lr": 0.3, "max_epochs": 40, "early_stopping": 2}
    trainer = Classifier(DataSource(table), objective="val_loss", exported=True)
    reports = trial(trainer, params, tmp_path / "trial", decide_at=frozenset({30, 35}))
    assert [report.budget for report in reports[-3:]] == [30, 35, 40] and reports[-4].budget < 29
    best = min(report.metrics["val_loss"] for report in reports)
    for report in reports[-3:]:
        assert report.metrics["val_loss"] == best
    examples = read(DataSource(table))
    rows = one_split(examples, 0.2).validation
    told = export.predict(tmp_path / "trial", table)
    losses = [-math.log(told[row].probabilities[examples.classes[examples.labels[row]]]) for row in rows]
    assert np.mean(losses) == pytest.approx(best, rel=1e-4)  # the best epoch's weights, not the last one's


@pytest.mark.parametrize("objective", ["seconds", "fold_score", "train_loss", "acc_nowhere", "worst_group_acc"])
def test_what_is_no_measurement_of_held_out_rows_is_not_what_early_stopping_watches(table, tmp_path, objective) -> None:
    params = {**PARAMS, "max_epochs": 8, "early_stopping": 3}
    usual = trial(Classifier(DataSource(table)), params, tmp_path / "usual")
    other = trial(Classifier(DataSource(table), objective=objective), params, tmp_path / "other")
    assert [values(report) for report in other] == [values(report) for report in usual]
    assert other[-1].metrics["val_acc"] == max(report.metrics["val_acc"] for report in other) > 0.7


def test_early_stopping_watches_the_worst_group_where_there_are_groups(table, tmp_path) -> None:
    params = {**PARAMS, "lr": 0.1, "max_epochs": 12, "early_stopping": 3}
    reports = trial(Classifier(DataSource(table, group="site"), objective="worst_group_acc"), params, tmp_path / "a")
    assert reports[-1].metrics["worst_group_acc"] == max(report.metrics["worst_group_acc"] for report in reports)


def test_a_loss_that_is_not_finite_is_a_cause_and_names_its_fold(table, tmp_path) -> None:
    params = {**PARAMS, "lr": 1e30, "optimizer": "sgd", "grad_clip": 0}
    with pytest.raises(TrialFailure) as raised:
        trial(Classifier(DataSource(table)), params, tmp_path / "one")
    assert raised.value.cause in (Cause.NAN_LOSS, Cause.GRADIENT_EXPLOSION)
    with pytest.raises(TrialFailure, match=r"^fold 1 of 3: ") as raised:
        trial(Classifier(DataSource(table), folds=Folds(3)), params, tmp_path / "folds")
    assert raised.value.cause.is_fault_of_configuration


def test_folds_are_told_one_by_one_and_together(table, tmp_path) -> None:
    trainer = Classifier(DataSource(table), folds=Folds(3, "mean"))
    reports = trial(trainer, PARAMS, tmp_path / "trial")
    assert [report.budget for report in reports] == [4, 8, 12]
    last = reports[-1].metrics
    each = [last[f"fold_{k}_val_acc"] for k in (1, 2, 3)]
    assert last["val_acc"] == pytest.approx(np.mean(each))
    assert last["val_acc_spread"] == pytest.approx(np.std(each, ddof=1))
    assert [report.metrics["fold_score"] for report in reports] == pytest.approx([-value for value in each])
    assert reports[1].metrics["val_acc"] == pytest.approx(np.mean(each[:2]))


def test_the_baseline_knows_the_shares_of_the_classes_and_nothing_else(tmp_path) -> None:
    trainer = Classifier(DataSource(write_images(tmp_path / "images", rows=30)))
    told = trainer.prepare(TrialContext(params=IMAGES, folder=tmp_path))
    assert told["baseline"] == pytest.approx({"val_acc": 1 / 3, "val_loss": math.log(3)})
    assert told["calibration"]["data"] == ["30 rows of kind image in 3 classes"]


@pytest.mark.parametrize("folds", [None, Folds(3)])
def test_rows_are_split_the_same_way_whatever_the_trial(folds, table, tmp_path) -> None:
    trainer = Classifier(DataSource(table), folds=folds)
    examples = read(trainer.source)
    made = [
        Making(trainer, chosen({**PARAMS, "lr": rate}), examples, TrialContext(params={}, folder=tmp_path, seed=seed))
        for seed, rate in ((1, 0.1), (2, 0.2))
    ]
    for one, other in zip(made[0].splits, made[1].splits, strict=True):
        assert one.train.tolist() == other.train.tolist() and one.validation.tolist() == other.validation.tolist()


def test_a_grouped_table_tells_the_accuracy_of_each_group_and_of_the_worst(table, tmp_path) -> None:
    params = {**PARAMS, "groupdro_enabled": True, "groupdro_eta": 1.0, "groupdro_warmup_epochs": 0}
    last = trial(Classifier(DataSource(table, group="site")), params, tmp_path / "trial")[-1].metrics
    groups = {name: value for name, value in last.items() if name.startswith("acc_site")}
    assert groups and last["worst_group_acc"] == min(groups.values())


def test_group_robust_training_needs_groups(table) -> None:
    (told,) = Classifier(DataSource(table)).check({**PARAMS, "groupdro_enabled": True})
    assert told.startswith("groupdro.enabled: got true, but data of kind tabular is one modality")


def test_more_classes_than_there_are_is_one_line(table) -> None:
    assert Classifier(DataSource(table)).check({**PARAMS, "n_classes": 3}) == [
        "data.n_classes: got 3, but the data has 2 classes"
    ]


def test_weights_fill_the_backbone_and_two_rates_move_it_apart(tmp_path) -> None:
    source = DataSource(write_images(tmp_path / "images"))
    torch.manual_seed(5)
    backbone, _ = backbones.build("resnet_mini", "4_8")
    save_file(backbone.state_dict(), tmp_path / "own.safetensors")
    weights = {"resnet_mini": str(tmp_path / "own.safetensors")}
    params = {**{name: value for name, value in IMAGES.items() if name != "lr"}, "lr_backbone": 0.0, "lr_new": 0.01}
    params["weight_decay"] = 0.0
    trainer = Classifier(source, weights=weights, exported=True)
    trial(trainer, params, tmp_path / "trial")
    trained = load_file(tmp_path / "trial" / "model.safetensors")
    for name, value in backbone.named_parameters():
        torch.testing.assert_close(trained[f"encoders.image.{name}"], value.detach())
    about = json.loads((tmp_path / "trial" / "model.json").read_text())
    assert tuple(about["recipe"]["mean"]) == pixels.IMAGENET[0]  # as pretrained weights expect
    said = trainer.prepare(TrialContext(params=params, folder=tmp_path))["calibration"]["data"]
    assert any("of resnet_mini from" in line for line in said)


def test_weights_that_do_not_fit_an_architecture_are_found_before_the_search(tmp_path) -> None:
    source, path = DataSource(write_images(tmp_path / "images")), tmp_path / "resnet18.pth"
    torch.save(backbones.build("resnet18")[0].state_dict(), path)
    trainer = Classifier(source, weights={"*": str(path)})
    assert trainer.check({**IMAGES, "architecture": "resnet18"}) == []
    for architecture in ("resnet34", "resnet50", "efficientnet_b0", "resnet_mini"):
        (told,) = trainer.check({**IMAGES, "architecture": architecture})
        assert told.startswith(f"data.weights: {path} does not fit {architecture}: ")
    assert Classifier(source, weights={"resnet18": str(path)}).check({**IMAGES, "architecture": "resnet34"}) == []
    path.write_bytes(b"nothing of the kind")
    (told,) = trainer.check({**IMAGES, "architecture": "resnet18"})
    assert told.startswith(f"data.weights: {path} cannot be read as a state dict")


@pytest.mark.parametrize("kind", ["image", "image_text", "text", "tabular"])
def test_an_exported_model_says_of_its_data_what_was_measured(kind, table, tmp_path) -> None:
    if kind == "tabular":
        source, params, rows = DataSource(table), PARAMS, table
    else:
        folder = write_images(tmp_path / "images")
        entries = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        listed = "\n".join(["file_name,text", *(f"{entry['file_name']},{entry['text']}" for entry in entries)])
        (folder / "rows.csv").write_text(listed + "\n")
        source = DataSource(folder / "metadata.jsonl", kind=kind, text=None if kind == "image" else "text")
        params = IMAGES if kind != "text" else {"lr": 0.01, "max_epochs": 2, "batch_size": 8}
        rows = folder if kind == "image" else folder / "rows.csv"
    last = trial(Classifier(source, exported=True), params, tmp_path / "trial")[-1]
    assert sorted(path.name for path in (tmp_path / "trial").iterdir() if path.is_file()) == [
        "model.json", "model.safetensors",
    ]  # fmt: skip
    told = export.predict(tmp_path / "trial", rows, text="text" if kind in ("text", "image_text") else None)
    examples = read(source)
    assert len(told) == len(examples)
    held = one_split(examples, 0.2).validation
    right = [told[row].label == examples.classes[examples.labels[row]] for row in held]
    assert np.mean(right) == pytest.approx(last.metrics["val_acc"])
    assert all(sum(one.probabilities.values()) == pytest.approx(1) for one in told)


def test_a_search_leaves_no_models_behind(table, tmp_path) -> None:
    trial(Classifier(DataSource(table)), PARAMS, tmp_path / "trial")
    assert [path.name for path in (tmp_path / "trial").iterdir()] == ["tensorboard"]


def test_predicting_without_a_model_or_a_column_is_one_line(table, tmp_path) -> None:
    with pytest.raises(InputError, match=r"holds no classifier; must hold model\.json"):
        export.predict(tmp_path, table)
    trial(Classifier(DataSource(table), exported=True), PARAMS, tmp_path / "trial")
    (tmp_path / "other.csv").write_text("width\n1\n")
    with pytest.raises(InputError, match="has no column height, noise; must have width, height, noise"):
        export.predict(tmp_path / "trial", tmp_path / "other.csv")


def test_statistics_are_those_of_the_training_rows(table, tmp_path) -> None:
    examples, settings = read(DataSource(table)), chosen(PARAMS)
    rows = encoded(examples, settings, {})
    train = np.arange(10)
    scaler = recipe(rows, train, settings, "rows").scaler
    assert scaler.mean == pytest.approx(examples.features[:10].mean(axis=0), rel=1e-5)
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    mean, deviation = pixels.statistics(images)
    shown = pixels.normalised(images, mean, deviation, torch.device("cpu"))
    assert shown.mean(dim=(0, 2, 3)).numpy() == pytest.approx(np.zeros(3), abs=1e-5)
    assert shown.std(dim=(0, 2, 3), correction=0).numpy() == pytest.approx(np.ones(3), rel=1e-5)


def test_augmentation_shifts_and_mirrors_and_is_told_by_its_generator() -> None:
    images = torch.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16).remainder(251).to(torch.uint8)
    chance = torch.Generator().manual_seed(3)
    found = [pixels.augmented(images, chance.manual_seed(3), flip=True, crop=True) for _ in range(2)]
    assert torch.equal(*found) and found[0].shape == images.shape
    assert torch.equal(pixels.augmented(images, chance, flip=False, crop=False), images)
    mirrored = pixels.augmented(images.repeat(20, 1, 1, 1), chance, flip=True, crop=False)
    kept = [torch.equal(row, images[place % 2]) for place, row in enumerate(mirrored)]
    turned = [torch.equal(row, images[place % 2].flip(-1)) for place, row in enumerate(mirrored)]
    assert all(one != other for one, other in zip(kept, turned, strict=True)) and any(kept) and any(turned)


def test_images_are_decoded_once_a_worker(tmp_path, monkeypatch) -> None:
    source, shared = DataSource(write_images(tmp_path / "images", rows=12)), {}
    trial(Classifier(source), IMAGES, tmp_path / "a", shared=shared)

    def never(*_: Any) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(pixels, "pixels", never)
    trial(Classifier(source), {**IMAGES, "lr": 0.02}, tmp_path / "b", shared=shared)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains(precision, tmp_path) -> None:
    source = DataSource(write_images(tmp_path / "images", rows=12), text="text")
    last = trial(
        Classifier(source, precision=precision), {**IMAGES, "latent_dim": 8, "lambda_sep": 0.1}, tmp_path / "t"
    )
    assert math.isfinite(last[-1].metrics["val_loss"])


def test_a_trial_that_takes_too_long_is_a_cause(table, tmp_path) -> None:
    with pytest.raises(TrialFailure, match="the limit is 0 s") as raised:
        trial(Classifier(DataSource(table), trial_timeout_seconds=1e-9), PARAMS, tmp_path / "t")
    assert raised.value.cause is Cause.TRIAL_TIMEOUT


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tensorboard_has_a_point_an_epoch_and_none_twice(table, tmp_path) -> None:
    trainer, folder = Classifier(DataSource(table)), tmp_path / "trial"
    folder.mkdir()
    context = TrialContext(params=PARAMS, folder=folder, seed=1)
    running = trainer.run(context)
    first = next(running)
    saved = tmp_path / "saved"
    saved.mkdir()
    first.save(saved)
    next(running), next(running)  # told, then lost with the worker
    running.close()
    rest = list(trainer.run(dataclasses.replace(context, restore=saved)))
    told = points(folder, "val_loss")
    assert [step for step, _ in told] == [1, 2, 3, 4]
    assert [value for _, value in told[1:]] == pytest.approx([report.metrics["val_loss"] for report in rest], rel=1e-5)


def test_tensorboard_keeps_folds_apart(table, tmp_path) -> None:
    reports = trial(Classifier(DataSource(table), folds=Folds(2)), PARAMS, tmp_path / "trial")
    assert [step for step, _ in points(tmp_path / "trial", "fold_2/train_loss")] == [5, 6, 7, 8]
    told = points(tmp_path / "trial", "val_acc")
    assert [step for step, _ in told] == [report.budget for report in reports]
    assert [value for _, value in told] == pytest.approx([report.metrics["val_acc"] for report in reports], rel=1e-6)


def test_hyperparameters_are_logged(tmp_path) -> None:
    with EpochLog(tmp_path) as log:
        log.configuration({"lr": 0.1, "optimizer": "sgd", "widths": None}, ("val_acc",))
        log.scalars(1, {"val_acc": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    told = plugin_data_pb2.HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    ).session_start_info.hparams
    assert told["lr"].number_value == 0.1 and told["optimizer"].string_value == "sgd"
    assert set(told) == {"lr", "optimizer", "widths"}
