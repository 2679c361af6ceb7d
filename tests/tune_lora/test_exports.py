"""The files of a results folder hold what the study holds."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tune_lora import atomic, exports, store
from tune_lora.store import StudyRecord, TrialRecord

NAMES = (
    "study.yaml",
    "best_params.json",
    "best_config.yaml",
    "all_trials.csv",
    "all_trials.parquet",
    "top_20_trials.csv",
)
SPEC = {"name": "glow", "folder": Path("data"), "space": {"learning_rate": {"low": 6e-5, "choices": (1, 2)}}}


@pytest.fixture(scope="module")
def written(example: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    paths = exports.write_all(example.study, folder, SPEC)
    assert sorted(path.name for path in paths) == sorted(NAMES) == sorted(path.name for path in folder.iterdir())
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_study_file_reads_back(written: Path) -> None:
    expected = {"name": "glow", "folder": "data", "space": {"learning_rate": {"low": 6e-5, "choices": [1, 2]}}}
    assert yaml.safe_load((written / "study.yaml").read_text()) == expected


def test_best_params_has_exactly_the_promised_form(written: Path, example: Any) -> None:
    content = json.loads((written / "best_params.json").read_text())
    assert list(content) == ["best_value", "best_params", "n_trials", "best_trial_number"]
    best = example.study.best_trial
    assert (content["best_value"], content["best_trial_number"]) == (best.value, best.number)
    assert content["best_params"] == best.params
    assert content["n_trials"] == 23, "the trial that still runs is no result yet"


def test_best_config_is_the_whole_resolved_configuration(written: Path, example: Any) -> None:
    text = (written / "best_config.yaml").read_text()
    assert yaml.safe_load(text) == example.record.best.config
    assert "not verified" in text
    assert "uncalibrated" in text


def test_csv_has_every_trial_with_state_cause_params_derived_values_metrics_and_time(
    written: Path, example: Any
) -> None:
    rows = rows_of(written / "all_trials.csv")
    assert [int(row["number"]) for row in rows] == list(range(24))
    failed = rows[5]
    assert (failed["state"], failed["cause"], failed["value"]) == ("failed", "nan_loss", "")
    best = example.record.best
    row = rows[best.number]
    assert float(row["value"]) == best.value
    assert float(row["params.learning_rate"]) == best.params["learning_rate"]
    assert int(row["config.network_alpha"]) == best.config["network_alpha"]
    assert float(row["metrics.clip_consistency"]) == best.metrics["clip_consistency"]
    assert float(row["seconds"]) == best.seconds
    assert row["started"] == best.started.isoformat()


def test_csv_shows_what_a_reference_outside_the_space_trained_with(written: Path) -> None:
    assert float(rows_of(written / "all_trials.csv")[0]["params.learning_rate"]) == 1.3e-4


def test_parquet_is_the_csv_with_types(written: Path) -> None:
    table = pq.read_table(written / "all_trials.parquet")
    rows = rows_of(written / "all_trials.csv")
    assert table.column_names == list(rows[0])
    for typed, text in zip(table.to_pylist(), rows, strict=True):
        assert {name: exports._text(cell) for name, cell in typed.items()} == text
    types = {name: table.schema.field(name).type for name in table.column_names}
    assert types["number"] == types["params.network_dim"] == pa.int64()
    assert types["value"] == types["metrics.score"] == types["params.learning_rate"] == pa.float64()
    assert pa.types.is_timestamp(types["started"])


def test_top_trials_are_the_completed_ones_best_first(written: Path, example: Any) -> None:
    rows = rows_of(written / "top_20_trials.csv")
    assert [int(row["number"]) for row in rows] == [trial.number for trial in example.record.ranked()[:20]]
    values = [float(row["value"]) for row in rows]
    assert values == sorted(values)


def test_at_most_twenty_top_trials(tmp_path: Path) -> None:
    trials = tuple(TrialRecord(n, "complete", float(n), {"x": n}, {"x": n}) for n in range(30))
    table = exports.trial_table(
        StudyRecord("s", "maximize", trials), StudyRecord("s", "maximize", trials).ranked()[: exports.TOP]
    )
    assert [row[0] for row in table.rows] == list(range(29, 9, -1))


@pytest.mark.parametrize("n_trials", [0, 1])
def test_every_file_is_there_when_no_trial_completed(n_trials: int, tmp_path: Path) -> None:
    study = store.open_study(store.sqlite_url(tmp_path), "empty", "minimize")
    for _ in range(n_trials):
        study.ask()
    exports.write_all(study, tmp_path, SPEC)
    content = json.loads((tmp_path / "best_params.json").read_text())
    assert content == {"best_value": None, "best_params": {}, "n_trials": 0, "best_trial_number": None}
    assert "no trial completed" in (tmp_path / "best_config.yaml").read_text()
    assert yaml.safe_load((tmp_path / "best_config.yaml").read_text()) == {}
    assert len(rows_of(tmp_path / "all_trials.csv")) == n_trials
    assert (tmp_path / "top_20_trials.csv").read_text().startswith("number,state,cause,value")
    assert pq.read_table(tmp_path / "all_trials.parquet").num_rows == n_trials


cells = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False), st.text()
)


@given(st.lists(cells, min_size=1, max_size=6))
def test_any_column_of_choices_becomes_one_type_and_keeps_its_text(column: list[Any]) -> None:
    typed = exports._typed("params.x", column).to_pylist()
    for got, given_cell in zip(typed, column, strict=True):
        assert (got is None) == (given_cell is None)
        assert got == given_cell or got == exports._text(given_cell)


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = atomic.write_text(tmp_path / "best.json", "old")

    def break_off() -> None:
        with atomic.replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        break_off()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
