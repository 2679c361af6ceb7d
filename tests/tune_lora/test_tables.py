"""Configurations and past results in files: what is read, and that every mistake is one line with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from search_spaces.space import Space
from tune_lora.knowledge._tables import Row, read

SPACE = Space.from_mapping(
    {
        "parameters": {
            "learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-2},
            "network_dim": {"type": "categorical", "choices": [64, 128]},
            "optimizer_type": {"type": "categorical", "choices": ["AdamW", "Lion"], "default": "AdamW"},
            "epochs": {"type": "int", "low": 1, "high": 20, "default": 10},
            "flip": {"type": "categorical", "choices": [True, False], "default": True},
        },
        "derived": {"network_alpha": "network_dim / 2"},
    }
)


def rows(given: Any) -> list[Row]:
    mistakes: list[str] = []
    found = read(str(given) if isinstance(given, Path) else given, "search.observations", SPACE, mistakes)
    assert mistakes == []
    return found


def mistakes_of(given: Any) -> list[str]:
    mistakes: list[str] = []
    assert read(str(given) if isinstance(given, Path) else given, "search.observations", SPACE, mistakes) == []
    assert all(line and "\n" not in line for line in mistakes)
    return mistakes


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_a_csv_has_a_column_for_each_parameter_and_the_value(tmp_path: Path) -> None:
    text = (
        "name,learning_rate,network_dim,optimizer_type,epochs,flip,value\n"
        "first,1e-4,64.0,Lion,8,false,0.25\n"
        ",2E-4,128,AdamW,,true,\n"
    )
    first, second = rows(write(tmp_path / "past.csv", text))
    expected = {"learning_rate": 1e-4, "network_dim": 64, "optimizer_type": "Lion", "epochs": 8, "flip": False}
    assert (first.name, first.params, first.value) == ("first", expected, 0.25)
    assert isinstance(first.params["network_dim"], int)
    assert (second.name, second.value) == ("past-2", None)
    assert "epochs" not in second.params


def test_yaml_json_and_a_list_say_the_same(tmp_path: Path) -> None:
    entry = {"name": "a", "params": {"learning_rate": 1e-4, "network_dim": 64}, "value": 0.2, "note": "good"}
    text = "- {name: a, learning_rate: 1e-4, network_dim: 64, value: 0.2, note: good}\n"
    in_yaml, in_json = write(tmp_path / "a.yaml", text), write(tmp_path / "a.json", json.dumps([entry]))
    found = [rows(given)[0] for given in (in_yaml, in_json, [entry])]
    assert len({(row.name, row.value, row.note, json.dumps(row.params)) for row in found}) == 1


def test_the_table_that_a_study_leaves_behind_is_read(tmp_path: Path) -> None:
    text = (
        "number,state,cause,value,provenance,params.learning_rate,params.network_dim,config.network_alpha,metrics.loss\n"
        "0,complete,,0.3,sampler,0.001,64,32,1.0\n1,pruned,pruned,,sampler,0.002,128,64,2.0\n"
    )
    (row,) = rows(write(tmp_path / "all_trials.csv", text))
    assert (row.name, row.params, row.value) == ("trial-0", {"learning_rate": 0.001, "network_dim": 64}, 0.3)


def test_every_mistake_is_found_with_its_line(tmp_path: Path) -> None:
    text = (
        "learning_rate,network_dmi,value\n"  # line 1
        "1e-4,64,0.2\n"
        "fast,64,0.2\n"
        "1e-4,64,nan\n"
        "1e-4,64,good\n"
        "inf,128,0.1\n"
    )
    path = write(tmp_path / "past.csv", text)
    found = mistakes_of(path)
    assert len(found) == 5
    assert f"{path}:2: unknown parameter 'network_dmi'; did you mean 'network_dim'?" in found[0]
    assert found[1].startswith(f"{path}:3: learning_rate: got 'fast'; must be a number (1e-05 .. 0.01 (log))")
    assert found[2] == f"{path}:4: value: got nan; must be a finite number, or left out"
    assert found[3].startswith(f"{path}:5: value: got 'good'")
    assert found[4] == f"{path}:6: learning_rate: got inf; must be finite"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "learning_rate,network_dim\n1e-4\n", "a.csv:2: has another number of cells than the header (2)"),
        ("a.csv", "learning_rate\n", "holds no entry"),
        ("a.yaml", "learning_rate: 1e-4\n", "holds dict; must be a list of configurations"),
        ("a.yaml", "- just text\n", "entry 1: got 'just text'"),
        ("a.yaml", "- {value: 0.2}\n", "entry 1: holds no value; must set at least one parameter"),
        ("a.yaml", "- {name: x, learning_rate: 1e-4}\n- {name: x, learning_rate: 1e-3}\n", "duplicate name 'x'"),
        ("a.json", "[{", "a.json: is not JSON"),
        ("a.txt", "learning_rate\n", "must end in .csv, .yaml or .json"),
    ],
)
def test_a_file_that_is_no_table_of_configurations_is_said_to_be_none(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (found,) = mistakes_of(write(tmp_path / name, text))
    assert said in found


def test_a_file_that_is_not_there_is_named() -> None:
    assert mistakes_of("nowhere.csv") == [
        "search.observations: file 'nowhere.csv' does not exist; must be a CSV, YAML or JSON file of configurations"
    ]
