"""docs/own_trainer.md and its example, on a real Ray session; and what a study file can get wrong about a trainable."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainables.custom import Trial
from tune_lora import build, overrides, single, study
from tune_lora import spec as specs
from tune_lora.custom_spec import CustomSpec
from tune_lora.errors import InputError

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "own_trainer.md").read_text("utf-8")
EXAMPLE = ROOT / "examples" / "own_trainer" / "study.yaml"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def shown(folder: Path, **changes: Any) -> Path:
    """The study of the docs, written into a folder."""
    (folder / "my_module.py").write_text(blocks("python")[0])
    document = yaml.safe_load(blocks("yaml")[0]) | changes
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    return folder / "study.yaml"


def quietly(path: Path, folder: Path, n_trials: int) -> specs.StudySpec:
    return overrides.in_study(
        specs.load(path),
        {"tracking.wandb": "off", "results": str(folder), "n_trials": n_trials, "concurrent": 2},
    )


def test_the_example_of_the_docs_runs(tmp_path: Path, ray_session: object) -> None:
    spec = quietly(shown(tmp_path), tmp_path, 4)
    record = study.run(spec)
    assert len(record.trials) == 4 and record.count("failed") == 0
    assert record.best is not None and record.best.last_budget == 8
    rate = record.best.config["learning_rate"]
    assert record.best.value == pytest.approx(9 * (1 - 2 * rate) ** 16)


def test_the_example_beside_the_docs_runs_and_its_best_trains_longer(tmp_path: Path, ray_session: object) -> None:
    spec = quietly(EXAMPLE, tmp_path, 3)
    record = study.run(spec)
    assert record.count("failed") == 0 and record.best is not None
    assert record.best.metrics["val_acc"] > 0.8
    trained = single.train(spec.folder, epochs=14, output=tmp_path / "longer", given={"learning_rate": 0.1})
    assert re.fullmatch(r"trained: val_loss 0\.\d+", single.outcome(trained))


def test_everything_that_a_function_gets_is_named() -> None:
    for one in fields(Trial):
        assert f"`{one.name}`" in TEXT
    for name in CustomSpec.model_fields:
        assert f"`custom.{name}`" in TEXT and f"`train.{name}`" in TEXT


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trainable": "my_modul:train"}, "module 'my_modul' does not exist"),
        ({"trainable": "my_modul:train", "custom": {}}, "module 'my_modul' does not exist"),
        ({"trainable": "my_module:trian"}, "did you mean 'train'?"),
        ({"trainable": "my_module"}, "must be module:function"),
        ({"custom": {}}, "custom.horizon is missing"),
        ({"custom": {"horizon": "epoch"}}, "epoch is missing; it is the horizon"),
        ({"custom": {"horizon": "epochs", "metrics": ["loss"]}}, "objective.metric: got 'val_loss'; "),
        ({"trainer": "curve"}, "beside the trainer curve"),
        ({"custom": {"horizons": 3}}, "did you mean 'horizon'?"),
    ],
)
def test_what_is_wrong_is_one_line_before_the_search(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        build.plan(specs.load(shown(tmp_path, **changes)))
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_trainer_of_ones_own_without_a_function_is_one_line() -> None:
    with pytest.raises(InputError, match="trainable is missing; must be module:function"):
        specs.from_mapping({"name": "x", "trainer": "custom", "space": "lora_tiny"}, "test")


def test_another_function_is_another_study(tmp_path: Path) -> None:
    one = specs.load(shown(tmp_path)).as_mapping()
    other = one | {"trainable": "other:train"}
    (line,) = specs.differences(one, other)
    assert line.startswith("trainable: ")
    assert specs.from_mapping(one, "again").as_mapping() == one


def test_epochs_of_a_trainer_of_ones_own(tmp_path: Path) -> None:
    path = shown(tmp_path)
    (tmp_path / "config.yaml").write_text("learning_rate: 0.1\nepochs: 8\n")
    trained = single.train(path, config=tmp_path / "config.yaml", epochs=3, output=tmp_path / "out")
    assert single.outcome(trained) == f"trained: val_loss {9 * 0.8**6:.4g}"
    shown(tmp_path, custom={"horizon": 4})
    with pytest.raises(InputError, match="--epochs: how long a trial is stands in no setting"):
        single.train(path, config=tmp_path / "config.yaml", epochs=3, output=tmp_path / "other")
    with pytest.raises(InputError, match="--early-stopping: the trainer custom does not stop early"):
        single.train(path, config=tmp_path / "config.yaml", early_stopping=3, output=tmp_path / "other")
