"""A study goes on with the data it began with, wherever they lie now, and with no other: on a real Ray session."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from tune_lora import overrides, same_study, sources, store, study
from tune_lora import spec as specs
from tune_lora.build import plan
from tune_lora.cli import app
from tune_lora.errors import InputError


def write_rows(path: Path) -> Path:
    """60 rows of two classes that one feature tells apart."""
    x = np.random.default_rng(0).normal(size=(60, 2))
    lines = [f"{a:.3f},{b:.3f},{'far' if a > 0 else 'near'}" for a, b in x]
    path.write_text("\n".join(["a,b,label", *lines]) + "\n")
    return path


def mapping(folder: Path) -> dict[str, Any]:
    return {
        "name": "rows",
        "trainer": "classifier",
        "data": {"path": "rows.csv"},
        "space": {
            "name": "rates",
            "parameters": {"optimizer.lr": {"type": "loguniform", "low": 1e-3, "high": 1e-1}},
            "fixed": {"training.epochs": 2, "training.batch_size": 16},
        },
        "budget": {"n_trials": 2, "plateau": None},
        "tracking": {"wandb": "off"},
        "results": str(folder / "results"),
    }


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """A folder with a study file, its rows, and the results of two trials."""
    folder = tmp_path_factory.mktemp("begun")
    write_rows(folder / "rows.csv")
    (folder / "study.yaml").write_text(yaml.safe_dump(mapping(folder)))
    study.run(specs.load(folder / "study.yaml"))
    return folder


@pytest.fixture
def place(begun: Path, tmp_path: Path) -> Path:
    """A copy of it that the test may change; its data lie in the copy."""
    shutil.copytree(begun, tmp_path / "copy")
    (tmp_path / "copy" / "study.yaml").write_text(yaml.safe_dump(mapping(tmp_path / "copy")))
    return tmp_path / "copy"


def trials(place: Path) -> int:
    return len(store.load(place / "results" / "rows").trials)


def opened(place: Path) -> Any:
    return store.open_study(store.sqlite_url(place / "results" / "rows"), "rows", "maximize")


def test_changed_rows_are_refused_in_one_line_and_nothing_is_trained(place: Path) -> None:
    specification = specs.load(place / "study.yaml")
    rows = place / "rows.csv"
    text = rows.read_text()
    rows.write_text(text.replace("near", "far", 1))
    with pytest.raises(InputError) as caught:
        study.run(specification, n_trials="+1")
    assert str(caught.value) == (
        f"study 'rows' in {place / 'results' / 'rows'}: the data has changed since the study began: {rows}; "
        "give the new study another name, or take the change back"
    )
    assert trials(place) == 2
    rows.write_text(text)
    same_study.settle(opened(place), plan(specification))


def test_data_that_lie_elsewhere_now_are_the_same_and_the_study_knows_where(place: Path) -> None:
    moved = place / "elsewhere.csv"
    (place / "rows.csv").rename(moved)
    os.utime(moved, (1e9, 1e9))
    results = place / "results" / "rows"
    told = CliRunner().invoke(app, ["resume", str(results), "--n-trials", "+1", "--set", f"data.path={moved}"])
    assert told.exit_code == 0, told.output
    assert trials(place) == 3
    assert yaml.safe_load((results / "study.yaml").read_text())["data"]["path"] == str(moved)
    same_study.settle(opened(place), plan(sources.study_to_resume(results)))  # without being told again


@pytest.mark.parametrize(("name", "value"), [("data.held_out_share", 0.3), ("data.features", ["a"])])
def test_other_rows_or_columns_of_the_same_file_are_another_study(place: Path, name: str, value: Any) -> None:
    changed = overrides.in_study(specs.load(place / "study.yaml"), {name: value})
    with pytest.raises(InputError, match=f"was made with other settings .{name}: "):
        study.run(changed, n_trials="+1")
    assert trials(place) == 2


def test_a_study_from_before_data_were_looked_at_goes_on_and_has_them_looked_at_from_now_on(place: Path) -> None:
    opened(place).set_user_attr(store.DATA, None)
    rows = place / "rows.csv"
    specification = specs.load(place / "study.yaml")
    opened(place).set_user_attr(store.SPEC, specification.as_mapping())  # it was made where it lies
    same_study.settle(opened(place), plan(specification))
    rows.write_text(rows.read_text().replace("near", "far", 1))
    with pytest.raises(InputError, match="the data has changed"):
        study.run(specification, n_trials="+1")


def test_a_study_from_before_a_setting_was_there_goes_on_with_its_default_alone(place: Path) -> None:
    results = place / "results" / "rows"
    written = opened(place).user_attrs[store.SPEC]
    older = {name: value for name, value in written.items() if name not in ("transfer", "cross_validation")}
    older["evaluation"] = {name: value for name, value in older["evaluation"].items() if name != "guidance"}
    opened(place).set_user_attr(store.SPEC, older)
    ready = plan(sources.study_to_resume(results))
    same_study.settle(opened(place), ready)
    assert opened(place).user_attrs[store.SPEC]["transfer"] == written["transfer"]
    opened(place).set_user_attr(store.SPEC, older)
    with pytest.raises(InputError, match=r"was made with other settings \(evaluation.guidance: 4.0 -> 5.0\)"):
        same_study.settle(opened(place), plan(overrides.in_study(ready.spec, {"evaluation.guidance": 5.0})))


def test_without_a_fingerprint_another_path_is_another_study(place: Path) -> None:
    opened(place).set_user_attr(store.DATA, None)
    with pytest.raises(InputError, match=r"was made with other settings \(data.path: "):
        study.run(specs.load(place / "study.yaml"), n_trials="+1")


def test_every_place_of_data_is_one_of_a_study_file() -> None:
    from tune_lora.places import places_of

    places, _ = places_of(specs.StudySpec)
    assert set(same_study.DATA_PLACES) <= places
