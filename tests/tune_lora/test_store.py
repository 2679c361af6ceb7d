"""The Optuna study is the truth: anything that reads Optuna's or SQLite's files reads ours."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest

from trainables.protocol import Cause
from tune_lora import store
from tune_lora.errors import InputError
from tune_lora.store import StudyRecord, TrialRecord


def trial(number: int, value: float | None = None, **changes: Any) -> TrialRecord:
    state = "complete" if value is not None else "pruned"
    return TrialRecord(number=number, state=state, value=value, params={}, config={}, **changes)


class TestStudyOnDisk:
    def test_plain_optuna_reads_the_study(self, example: Any) -> None:
        study = optuna.load_study(study_name="glow", storage=f"sqlite:///{example.folder}/study.db")
        assert len(study.trials) == 24
        assert study.best_value == example.record.best.value
        assert study.best_trial.number == example.record.best.number

    def test_plain_sqlite_reads_the_study(self, example: Any) -> None:
        with sqlite3.connect(example.folder / "study.db") as connection:
            rows = connection.execute(
                "SELECT trials.number, trial_values.value FROM trials JOIN trial_values USING (trial_id)"
                " WHERE trials.state = 'COMPLETE' ORDER BY trial_values.value"
            ).fetchall()
        assert rows == [(done.number, done.value) for done in example.record.ranked()]

    def test_load_gives_the_same_from_the_folder_and_from_the_file(self, example: Any) -> None:
        assert store.load(example.folder) == store.load(example.folder / "study.db") == example.record


class TestRecords:
    def test_states_and_causes_are_read(self, example: Any) -> None:
        record = example.record
        assert [record.count(state) for state in ("failed", "running", "waiting")] == [4, 1, 0]
        assert record.count("complete") + record.count("pruned") == 19
        assert {done.number: done.cause for done in record.trials if done.state == "failed"} == {
            5: Cause.NAN_LOSS,
            11: Cause.BLACK_IMAGES,
            12: Cause.OUT_OF_MEMORY,
            17: Cause.CRASH,
        }

    def test_history_curve_and_images_are_by_budget_in_order(self, example: Any) -> None:
        best = example.record.best
        assert list(best.history) == list(range(1, best.config["max_train_epochs"] + 1))
        assert best.last_budget == best.config["max_train_epochs"]
        assert set(best.curve) >= {4, 8}
        assert list(best.curve) == sorted(best.curve)
        assert set(best.images) <= set(best.history)
        assert all((example.folder / path).is_file() for path in best.images[4].values())

    def test_only_a_completed_trial_has_a_value(self, example: Any) -> None:
        assert all((done.value is not None) == (done.state == "complete") for done in example.record.trials)

    def test_a_reference_outside_the_space_keeps_what_was_trained(self, example: Any) -> None:
        record = example.record
        prior = record.trials[0]
        assert prior.provenance == "prior:trial_3_5"
        assert "learning_rate" not in prior.params
        assert record.tried(prior)["learning_rate"] == 1.3e-4

    def test_what_was_tried_leaves_out_absent_conditional_parameters(self) -> None:
        first = TrialRecord(0, "complete", 1.0, {"a": 1, "b": 2}, {"a": 1, "b": 2, "derived": 3})
        second = TrialRecord(1, "complete", 1.0, {"a": 5}, {"a": 5, "derived": 6})
        record = StudyRecord("s", "minimize", (first, second))
        assert record.parameter_names == ("a", "b")
        assert record.tried(second) == {"a": 5}


class TestRanking:
    @pytest.mark.parametrize(("direction", "order"), [("minimize", [2, 1, 3]), ("maximize", [1, 3, 2])])
    def test_best_first_and_ties_by_number(self, direction: Any, order: list[int]) -> None:
        record = StudyRecord("s", direction, (trial(0), trial(1, 0.5), trial(2, 0.1), trial(3, 0.5)))
        assert [done.number for done in record.ranked()] == order
        assert record.best is not None
        assert record.best.number == order[0]

    def test_nothing_completed_has_no_best(self) -> None:
        record = StudyRecord("s", "minimize", (trial(0),))
        assert record.best is None
        assert not record.is_verified

    def test_verified_means_the_present_best(self) -> None:
        trials = (trial(1, 0.5), trial(2, 0.1))
        assert StudyRecord("s", "minimize", trials, verification={"trial": 2}).is_verified
        assert not StudyRecord("s", "minimize", trials, verification={"trial": 1}).is_verified


class TestMistakes:
    def test_a_folder_without_a_study_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"no study\.db here"):
            store.load(tmp_path)

    def test_an_empty_storage_says_what_it_holds(self, tmp_path: Path) -> None:
        optuna.storages.RDBStorage(store.sqlite_url(tmp_path))
        with pytest.raises(InputError, match="holds 0 studies"):
            store.load(tmp_path)

    def test_a_missing_study_names_the_available_ones(self, example: Any) -> None:
        with pytest.raises(InputError, match=r"'glwo' not found.*available: glow"):
            store.open_study(store.sqlite_url(example.folder), "glwo", "minimize", create=False)

    def test_a_file_that_is_no_database_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "study.db").write_text("this is not a database, only some text that is long enough to be read")
        with pytest.raises(InputError, match="not an Optuna study") as caught:
            store.load(tmp_path)
        assert "\n" not in str(caught.value)

    def test_a_foreign_database_is_refused_and_left_as_it_was(self, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / "study.db") as connection:
            connection.execute("CREATE TABLE recipes (name TEXT)")
        before = (tmp_path / "study.db").read_bytes()
        with pytest.raises(InputError, match="no table 'studies'"):
            store.load(tmp_path)
        assert (tmp_path / "study.db").read_bytes() == before


@pytest.mark.parametrize(
    "storage",
    ["sqlite:///{folder}/study.db", "sqlite:///{folder}", "nothing://here", "postgresql://me:secret@nowhere/x"],
)
def test_a_storage_that_cannot_be_opened_is_one_line_without_its_password(tmp_path: Path, storage: str) -> None:
    (tmp_path / "study.db").write_bytes(b"not a database, but long enough to be taken for one" * 30)
    with pytest.raises(InputError, match=r"^storage .*: cannot be opened \(.+\)$") as caught:
        store.open_study(storage.format(folder=tmp_path), "study", "minimize")
    assert "secret" not in str(caught.value)
