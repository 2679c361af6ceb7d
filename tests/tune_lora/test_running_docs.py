"""docs/running.md: its commands and options exist, and the shorthands do what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from tests.tune_lora.studies import RATES
from tune_lora import advise, figures, overrides, scaffold, single
from tune_lora.cli import app
from tune_lora.errors import InputError
from tune_lora.spec import StudySpec, from_mapping

TEXT = (Path(__file__).parents[2] / "docs" / "running.md").read_text("utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("tune-lora ")
]
GROUP: Any = get_command(app)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_and_its_options_exist(line: str) -> None:
    _, command, *words = line.split()
    options = {name for parameter in GROUP.commands[command].params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_there_are_commands_and_every_name_is_said() -> None:
    assert len(COMMANDS) >= 7
    for name in (*figures.KINDS, *advise.STATUSES, *scaffold.KINDS):
        assert name in TEXT


def study(**more: Any) -> StudySpec:
    return from_mapping({"name": "s", "trainer": "curve", "space": RATES, **more}, "test")


TRANSFER = {"trainer": "two_stage", "space": "transfer_aware"}
CLASSIFIER = {"trainer": "classifier", "space": "classifier_conservative", "data": {"path": "demo-shapes"}}


def test_the_shorthands_of_a_run_are_places_of_the_file() -> None:
    spec = overrides.for_run(study(**TRANSFER), timeout_hours=2.5, n_cv_folds=3, stage2_epochs=15)
    assert (spec.budget.timeout_hours, spec.cross_validation.n_folds, spec.fixed) == (2.5, 3, {"stage2_epochs": 15})
    turned_on = overrides.for_run(study(**CLASSIFIER), n_cv_folds=4).cross_validation
    assert (turned_on.enabled, turned_on.n_folds) == (True, 4)
    assert overrides.for_run(study()) == study()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"n_cv_folds": 3}, "--n-cv-folds: the trainer curve does not cross-validate"),
        ({"stage2_epochs": 3}, "--stage2-epochs: the trainer curve has one stage"),
    ],
)
def test_a_shorthand_for_what_a_trainer_lacks_is_one_line(asked: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        overrides.for_run(study(), **asked)  # type: ignore[arg-type]  # whole numbers are numbers


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    document = {"name": "curves", "trainer": "curve", "space": RATES, "tracking": {"wandb": "off"}}
    path.write_text(yaml.safe_dump(document))
    return path


def test_values_are_set_on_validate_and_sample(file: Path) -> None:
    run = CliRunner()
    valid = run.invoke(app, ["validate", str(file), "--set", "learning_rate=1e-3", "--set", "n_trials=9"])
    assert valid.exit_code == 0 and "9 trials of rates (max_train_epochs)" in valid.stdout
    drawn = run.invoke(app, ["sample", str(file), "-n", "3", "--format", "jsonl", "--set", "learning_rate=1e-3"])
    assert drawn.stdout.count('"learning_rate": 0.001') == 3
    space = run.invoke(app, ["sample", "lora_v2_1", "-n", "3", "--format", "jsonl", "--set", "network_dim=64"])
    assert space.stdout.count('"network_dim": 64') == 3
    wrong = run.invoke(app, ["validate", str(file), "--set", "learning_rat=1"])
    assert isinstance(wrong.exception, InputError) and "did you mean 'learning_rate'?" in str(wrong.exception)


def test_values_are_set_on_train_and_the_end_is_said(file: Path) -> None:
    config = file.parent / "config.yaml"
    config.write_text("learning_rate: 0.01\nmax_train_epochs: 4\n")
    asked = ["train", str(file), "--config", str(config), "--output", str(file.parent / "out")]
    ended = CliRunner().invoke(app, [*asked, "--epochs", "2", "--set", "learning_rate=1e-3"])
    assert ended.exit_code == 0, ended.output
    lines = ended.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["[1/2]", "[2/2]", "trained:", str(file.parent / "out")]
    record = single._record(file.parent / "out")
    assert record is not None and record["params"] == {"learning_rate": 1e-3, "max_train_epochs": 2}
    other = CliRunner().invoke(app, [*asked, "--epochs", "2", "--set", "learning_rate=2e-3"])
    assert "holds another training (learning_rate: 0.001 -> 0.002)" in str(other.exception)
