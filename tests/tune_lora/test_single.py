"""One configuration outside a search: an interrupted training goes on as if nothing had happened, and nothing that lies
in a folder already is trained over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from search_spaces.space import Space
from trainables import checkpoints, demo_character, parallel
from trainables.protocol import Report
from tune_lora import single, spec, trainers
from tune_lora.errors import InputError, StudyError
from tune_lora.spec import ResourcesSpec

pytestmark = pytest.mark.alone

CURVES = {
    "name": "curves",
    "trainer": "curve",
    "space": {
        "name": "rates",
        "parameters": {
            "learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1},
            "max_train_epochs": {"type": "categorical", "choices": [5, 6]},
        },
    },
}
PARAMS = {"learning_rate": 1e-3, "max_train_epochs": 5}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(CURVES))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(PARAMS))
    return path


class Watching:
    """Notes every report, and interrupts after the one at `until`."""

    def __init__(self, until: int | None = None) -> None:
        self.until, self.budgets, self.left = until, [], []
        self.metrics: dict[str, float] = {}

    def __call__(self, report: Report, horizon: int, left: float) -> None:
        self.budgets.append(report.budget)
        self.left.append(left)
        self.metrics = dict(report.metrics)
        if report.budget == self.until:
            raise KeyboardInterrupt


def train(study: Path, output: str, watch: Watching | None = None, **options: Any) -> Path:
    folder = study.parent
    return single.train(study, config=folder / "config.yaml", output=folder / output, watch=watch, **options)


def test_an_interrupted_training_goes_on_after_its_last_report(study: Path) -> None:
    whole, first, second = Watching(), Watching(until=3), Watching()
    train(study, "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        train(study, "parts", first)
    train(study, "parts", second)
    assert first.budgets + second.budgets == whole.budgets == [1, 2, 3, 4, 5]
    assert second.metrics == whole.metrics
    assert second.left[-1] == 0
    assert checkpoints.newest(study.parent / "parts") is None  # what has ended needs none


def test_what_has_ended_is_kept(study: Path) -> None:
    folder = train(study, "trained")
    with pytest.raises(InputError, match="holds this training, and it has ended") as caught:
        train(study, "trained")
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"), [({"epochs": 6}, "max_train_epochs: 5 -> 6"), ({"seed": 7}, "seed: 0 -> 7")]
)
def test_another_training_does_not_go_on_in_its_place(study: Path, options: dict[str, int], said: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(study, "trained", Watching(until=2), seed=0)
    with pytest.raises(InputError) as caught:
        train(study, "trained", **{"seed": 0, **options})
    assert f"holds another training ({said})" in str(caught.value)


def test_another_study_does_not_go_on_in_its_place(study: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(study, "trained", Watching(until=2))
    study.write_text(yaml.safe_dump(CURVES | {"curve": {"noise": 0.5}, "base": "smollm2"}))
    with pytest.raises(InputError, match="holds another training"):
        train(study, "trained")


def test_a_folder_of_something_else_is_kept(study: Path) -> None:
    (study.parent / "mine").mkdir()
    (study.parent / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="exists and is kept; remove it, or name another folder with --output"):
        train(study, "mine")


def test_a_training_that_fails_says_why(study: Path) -> None:
    study.write_text(yaml.safe_dump(CURVES | {"curve": {"nan_above": 1e-4}}))
    with pytest.raises(StudyError) as caught:
        train(study, "failed")
    assert str(caught.value) == (
        "training ended with nan_loss: loss is nan at epoch 2; the last good checkpoint is checkpoint/00000001"
    )
    assert (study.parent / "failed" / "checkpoint" / "00000001").is_dir()


@pytest.mark.parametrize(
    ("resources", "gpus", "expected"),
    [
        ({}, 0, 1), ({}, 4, 1), ({"gpu": 2}, 4, 2), ({"gpu": 2}, 1, 1), ({"gpu": 2}, 0, 1), ({"gpu": 0.5}, 1, 1),
        ({"processes": 2}, 0, 2), ({"processes": 3}, 2, 2), ({"processes": 2, "gpu": 4}, 8, 2),
    ],
)  # fmt: skip
def test_as_many_processes_train_as_the_study_says_and_the_machine_has(resources, gpus, expected) -> None:
    assert single.processes(ResourcesSpec(**resources), gpus) == expected


def test_two_processes_train_what_one_does(study: Path) -> None:
    alone, together = Watching(), Watching()
    train(study, "alone", alone)
    study.write_text(yaml.safe_dump(CURVES | {"resources": {"processes": 2, "gpu": 0}}))
    train(study, "together", together)
    assert parallel._group is not None and parallel._group.size == 2
    parallel._group.kill()
    assert together.budgets == alone.budgets and together.metrics == alone.metrics


def test_an_interrupted_lora_is_the_one_that_was_never_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path / "cache"))
    demo_character.write_dataset(tmp_path / "images", count=6, size=64)
    evaluation = {"n_images": 2, "steps": 2}
    document = {"name": "mine", "dataset": {"path": "images"}, "space": "lora_tiny", "evaluation": evaluation}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(document))
    space = Space.load("lora_tiny")
    params = space.resolve(space.defaults()) | {"max_train_epochs": 3}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(params))
    whole = train(tmp_path / "study.yaml", "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "study.yaml", "parts", Watching(until=2))
    parts = train(tmp_path / "study.yaml", "parts")
    one, other = (load_file(folder / "lora" / "lora.safetensors") for folder in (whole, parts))
    assert one.keys() == other.keys()
    assert all((value == other[name]).all() for name, value in one.items())


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_ends_with_its_own_code_and_the_same_command_goes_on(study: Path, processes: int) -> None:
    resources = {"processes": processes, "gpu": 0}
    study.write_text(yaml.safe_dump(CURVES | {"curve": {"seconds": 0.5}, "resources": resources}))
    folder = study.parent / "trained"
    options = ["--config", str(study.parent / "config.yaml"), "--output", str(folder)]
    command = [sys.executable, "-m", "tune_lora.cli", "train", str(study), *options]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while checkpoints.newest(folder) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: every process of the group is told
    _, complaints = running.communicate(timeout=90)
    assert running.returncode == 130
    assert complaints.strip() == "interrupted; the same command goes on from the last report"
    reached = checkpoints.budget_of(checkpoints.newest(folder) or folder)
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    first, *_, last = again.stdout.splitlines()
    assert first.startswith(f"[{reached + 1}/5]") and last == str(folder)


def test_a_misspelt_name_of_a_configuration_is_a_mistake_with_the_nearest(tmp_path: Path) -> None:
    space = {"name": "s", "parameters": {"optimizer.lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}}}
    study = {"name": "shapes", "trainer": "classifier", "data": {"path": str(tmp_path / "none.csv")}, "space": space}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"optimizer.lr": 1e-3, "optimizer.momentun": 0.3}))
    with pytest.raises(InputError) as caught:
        single.train(tmp_path / "study.yaml", config=tmp_path / "config.yaml", output=tmp_path / "trained")
    assert "config.yaml: optimizer.momentun: unknown setting; did you mean 'optimizer.momentum'?" in str(caught.value)
    assert not (tmp_path / "trained").exists()


def test_a_path_given_with_the_command_is_written_down_absolute(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study.write_text(yaml.safe_dump(CURVES | {"data": {"path": "/absent"}}))
    elsewhere = study.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "table.csv").touch()
    monkeypatch.chdir(elsewhere)
    folder = train(study, "trained", given={"data.path": "table.csv"})
    assert yaml.safe_load((folder / "study.yaml").read_text())["data"]["path"] == str(elsewhere / "table.csv")


@pytest.mark.parametrize(
    ("study", "setting"),
    [
        ({"trainer": "two_stage", "space": "transfer_aware"}, "stage2_final_patience"),
        (
            {"trainer": "classifier", "data": {"path": "none.csv"}, "space": "classifier_conservative"},
            "training.early_stopping",
        ),
    ],
)
def test_early_stopping_is_a_setting_that_the_trainer_reads(study: dict[str, Any], setting: str) -> None:
    kind = trainers.kind_of(spec.from_mapping({"name": "s"} | study, "study"))
    assert kind.patience == setting
    assert kind.rules is not None and setting in kind.rules


def test_a_two_stage_training_stops_early_where_it_is_told_to(tmp_path: Path) -> None:
    document = {"name": "s", "trainer": "two_stage", "space": "transfer_aware"}
    document["transfer"] = {"synthetic": {"n_stage1": 60, "n_stage2": 40}, "cache": False}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(document))
    params = {
        "encoder_hidden_dims": "8", "encoder_latent_dim": 4, "lr_pretrain": 1e-3, "stage1_epochs": 2,
        "stage2_final_epochs": 60, "lr_finetune": 0.1,
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(params))
    watch = Watching()
    folder = train(tmp_path / "study.yaml", "trained", watch, early_stopping=1)
    assert single._record(folder)["params"]["stage2_final_patience"] == 1
    assert watch.budgets[-1] == 62 and len(watch.budgets) < 2 + 60 // 10, "told every ten epochs until it stopped"
