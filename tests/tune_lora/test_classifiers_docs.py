"""docs/classifiers.md names every setting and metric, its mistakes are those that are really printed, and a study file
makes the classifier that it describes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.trainables.classification.makers import write_images, write_table
from trainables.classification.data import read
from trainables.classification.settings import RULES
from trainables.classification.source import DataSource
from trainables.classification.split import Folds
from trainables.classifier import METRICS, MODALITY_METRICS
from tune_lora import build, spec
from tune_lora.errors import InputError, InputErrors
from tune_lora.trainers import final_trainer_of, kind_of

TEXT = (Path(__file__).parents[2] / "docs" / "classifiers.md").read_text("utf-8")


def study(**changes) -> spec.StudySpec:
    document = {
        "name": "classes",
        "trainer": "classifier",
        "space": "classifier_conservative",
        "tracking": {"wandb": "off"},
        **changes,
    }
    return spec.from_mapping(document, "study.yaml")


def said(**changes) -> str:
    with pytest.raises(InputError) as raised:
        build.plan(study(**changes))
    return str(raised.value)


@pytest.mark.parametrize("name", [*RULES, *METRICS, *MODALITY_METRICS])
def test_every_setting_and_metric_is_named(name) -> None:
    assert f"`{name}`" in TEXT


def test_the_mistakes_it_shows_are_those_that_are_printed(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_images(Path("data"), rows=8)
    (folder / "001.png").write_bytes(b"no image")
    listing = folder / "metadata.jsonl"
    lines = listing.read_text().splitlines()
    lines[3] = lines[3].replace('"blue"', '""')
    lines.append(lines[0].replace('"blue"', '"lonely"'))
    listing.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputErrors) as raised:
        read(DataSource(folder))
    assert sorted(raised.value.mistakes) == sorted(re.findall(r"^    (data/metadata\.jsonl.*)$", TEXT, re.MULTILINE))


def test_the_python_example_is_python() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    compile(example, "docs/classifiers.md", "exec")


def test_the_yaml_examples_are_parts_of_a_study(tmp_path) -> None:
    folder = write_images(tmp_path / "images", rows=30)
    parts = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
    first, second = ({**part, "data": {"path": str(folder), "label": "label"}} for part in parts)
    plain = build.plan(study(**first)).trainer
    assert plain.folds is None and plain.source.label == "label"
    folded = build.plan(study(**second))
    assert folded.trainer.folds == Folds(5, "mean", 0)
    assert folded.trainer.horizon({"lr": 0.1, "max_epochs": 3}) == 15
    final = final_trainer_of(folded.spec)
    assert final.folds is None and final.exported


def test_it_is_about_the_validation_accuracy_unless_it_says_so(tmp_path) -> None:
    data = {"path": str(write_table(tmp_path / "table.csv"))}
    usual = study(data=data)
    assert (usual.objective.metric, usual.objective.direction) == ("val_acc", "maximize")
    other = study(data=data, objective={"metric": "val_loss"})
    assert build.plan(other).trainer.objective == "val_loss"
    assert kind_of(usual).epochs == "training.epochs"


def test_mistakes_in_a_study_are_one_line_each(tmp_path) -> None:
    table = str(write_table(tmp_path / "table.csv"))
    assert "data.path: '" in said(data={"path": str(tmp_path / "none")})
    assert "objective.metric: got 'val_ac'; did you mean 'val_acc'?" in said(
        data={"path": table}, objective={"metric": "val_ac"}
    )
    assert "fixed.lrr: unknown setting" in said(data={"path": table}, fixed={"lrr": 1})
    assert "'labl'" in said(data={"path": table, "label": "labl"})
    assert "model.architecture: got 'resnet18', but the data is of kind tabular" in said(
        data={"path": table}, fixed={"model.architecture": "resnet18"}
    )
    assert "n_folds: got 50" in said(data={"path": table}, cross_validation={"enabled": True, "n_folds": 50})
    assert "data.weights" in said(data={"path": table, "weights": str(tmp_path / "none.pth")})
    assert "resources: got 2 processes" in said(data={"path": table}, resources={"processes": 2, "gpu": 0})
    with pytest.raises(InputErrors, match="data is missing; must be given for the trainer classifier"):
        study()
    with pytest.raises(InputErrors, match="grouped_folds: got true without a group"):
        study(data={"path": table, "grouped_folds": True})
    with pytest.raises(InputErrors, match=r"data\.validation: got .* with cross_validation"):
        study(data={"path": table, "validation": table}, cross_validation={"enabled": True})


def test_paths_count_from_the_study_file(tmp_path) -> None:
    write_table(tmp_path / "table.csv")
    (tmp_path / "own.pth").write_bytes(b"")
    (tmp_path / "study.yaml").write_text(
        "name: a\ntrainer: classifier\nspace: classifier_conservative\n"
        "data: {path: table.csv, weights: {resnet18: own.pth}, validation: table.csv}\n"
    )
    found = spec.load(tmp_path / "study.yaml").data
    assert found.path == found.validation == str(tmp_path / "table.csv")
    assert found.weights == {"resnet18": str(tmp_path / "own.pth")}
