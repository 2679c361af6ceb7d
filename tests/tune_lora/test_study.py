"""Whole studies on a real Ray session: what is left behind, what a killed worker or driver costs, what continues."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
import psutil
import pytest

from trainables.protocol import Cause
from tune_lora import sources, store, study
from tune_lora import spec as specs
from tune_lora.errors import InputError, StudyError

pytestmark = pytest.mark.alone

SPACE = {
    "name": "rates",
    "parameters": {
        "learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1},
        "max_train_epochs": {"type": "categorical", "choices": [4, 6]},
    },
    "constraints": [
        {
            "name": "long_when_slow",
            "when": "learning_rate < 1e-4",
            "require": ["max_train_epochs >= 6"],
            "reason": "slow",
        }
    ],
}


def mapping(folder, **changes):
    return {
        "name": "curves",
        "trainer": "curve",
        "space": SPACE,
        "search": {"n_startup_trials": 4, "seed": 7},
        "scheduler": {"grace": 2, "eta": 2},
        "budget": {"n_trials": 8, "plateau": None},
        "resources": {"cpu": 1, "concurrent": 2},
        "tracking": {"wandb": "off"},
        "results": str(folder),
    } | changes


def spec(folder, **changes):
    return specs.from_mapping(mapping(folder, **changes), "test")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_session):
    folder = tmp_path_factory.mktemp("results")
    return study.run(spec(folder)), folder / "curves"


def test_it_ends_with_exactly_the_trials_asked_for(finished):
    record, _ = finished
    assert len(record.trials) == 8
    assert record.count("complete") + record.count("pruned") == 8
    assert record.count("pruned") >= 1


def test_what_was_told_is_exactly_what_was_trained(finished):
    record, _ = finished
    for trial in record.trials:
        horizon = trial.config["max_train_epochs"]
        if trial.state == "complete":
            assert trial.last_budget == horizon
            assert trial.value == pytest.approx(trial.history[horizon]["score"])
        else:
            assert trial.last_budget < horizon and trial.value is None and trial.curve
            assert trial.cause is Cause.PRUNED


def test_no_trial_breaks_a_rule(finished):
    record, _ = finished
    assert all(t.config["learning_rate"] >= 1e-4 or t.config["max_train_epochs"] >= 6 for t in record.trials)


def test_the_folder_holds_what_is_promised(finished):
    record, folder = finished
    tables = "all_trials.csv all_trials.parquet top_20_trials.csv"
    names = f"study.db study.yaml best_params.json best_config.yaml {tables} report.html"
    assert [name for name in names.split() if not (folder / name).is_file()] == []
    figures = "optimization_history param_importances parallel_coordinate slice contour intermediate_values"
    assert [name for name in figures.split() if not (folder / "figures" / f"{name}.png").is_file()] == []
    best = json.loads((folder / "best_params.json").read_text())
    assert best["best_value"] == record.best.value and best["best_trial_number"] == record.best.number
    assert best["n_trials"] == 8


def test_plain_optuna_and_plain_sqlite_read_it(finished):
    record, folder = finished
    theirs = optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'study.db'}")
    assert theirs.best_value == record.best.value
    with sqlite3.connect(folder / "study.db") as database:
        rows = database.execute("select count(*), sum(state = 'COMPLETE') from trials").fetchone()
    assert rows == (8, record.count("complete"))


def test_the_study_file_left_behind_runs_the_same_study(finished, ray_session):
    record, folder = finished
    again = specs.load(folder / "study.yaml")
    assert specs.differences(again.as_mapping(), dict(record.spec)) == []


def test_a_finished_study_is_extended_and_nothing_is_lost_or_counted_twice(finished, ray_session):
    before, folder = finished
    after = study.run(spec(folder.parent), n_trials="+3")
    assert len(after.trials) == len(before.trials) + 3
    assert after.trials[: len(before.trials)] == before.trials
    assert sources.planned_trials(after) == len(after.trials), "what was asked last is what is planned"
    assert specs.load(folder / "study.yaml").budget.n_trials == len(after.trials)


def test_a_study_that_has_its_trials_runs_none(finished, ray_session):
    _, folder = finished
    count = len(store.load(folder).trials)
    assert len(study.run(spec(folder.parent), n_trials=count).trials) == count


def test_another_definition_under_the_same_name_is_refused_with_the_difference(finished, ray_session):
    _, folder = finished
    changed = SPACE | {
        "parameters": SPACE["parameters"] | {"max_train_epochs": {"type": "categorical", "choices": [4]}}
    }
    with pytest.raises(InputError, match=r"max_train_epochs.*\[4, 6\] -> \[4\].*another name"):
        study.run(spec(folder.parent, space=changed))


def test_nan_trials_end_with_their_cause_and_the_search_avoids_them(tmp_path, ray_session):
    record = study.run(spec(tmp_path, curve={"nan_above": 1e-3}, budget={"n_trials": 16, "plateau": None}))
    failed = [trial for trial in record.trials if trial.state == "failed"]
    assert failed and all(trial.cause is Cause.NAN_LOSS and "nan" in trial.message for trial in failed)
    assert record.best.config["learning_rate"] <= 1e-3


def test_a_plateau_stops_the_study_and_says_so(tmp_path, ray_session):
    budget = {"n_trials": 60, "plateau": 3}
    record = study.run(spec(tmp_path, budget=budget, scheduler={"name": "none"}, search={"n_startup_trials": 2}))
    assert len(record.trials) < 60
    assert "not improved" in record.stop_reason or "plateau" in record.stop_reason


def test_resources_that_do_not_exist_are_refused_before_anything_starts(tmp_path, ray_session):
    with pytest.raises(InputError, match=r"resources\.cpu: got 64 a trial; must be at most"):
        study.run(spec(tmp_path, resources={"cpu": 64}))
    assert store.load(tmp_path / "curves").trials == ()


def test_two_drivers_cannot_run_one_study(tmp_path, ray_session):
    from tune_lora import locks

    with (
        locks.held(tmp_path / "curves" / "lock", "study"),
        pytest.raises(InputError, match=rf"running already \(process {os.getpid()}\)"),
    ):
        study.run(spec(tmp_path))


@pytest.mark.parametrize(("asked", "total"), [(None, 20), ("5", 5), (5, 5), ("+5", 13), ("+1", 9)])
def test_the_total_counts_from_what_is_there(asked, total, finished):
    record, _ = finished
    assert study.total_trials(asked, record, 20) == total


@pytest.mark.parametrize("asked", ["0", "many", "-3", "+", "1.5", "+0"])
def test_a_total_that_is_none_is_refused(asked, finished):
    with pytest.raises(InputError, match="--n-trials"):
        study.total_trials(asked, finished[0], 20)


def _kill_one_worker(folder: Path, killed: list[int]) -> None:
    """Kills the first training worker that has written a checkpoint."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not killed:
        time.sleep(0.05)
        if not list(folder.glob("trials/*/checkpoint/0*")):
            continue
        for process in psutil.process_iter(["name", "cmdline"]):
            title = " ".join(process.info["cmdline"] or [])
            if "ray::" in title and "Curve" in title:
                process.kill()
                killed.append(process.pid)
                break


def test_a_killed_worker_costs_no_result(tmp_path, ray_session):
    killed: list[int] = []
    thread = threading.Thread(target=_kill_one_worker, args=(tmp_path / "curves", killed))
    thread.start()
    slow = spec(tmp_path, curve={"seconds": 0.4}, scheduler={"name": "none"}, budget={"n_trials": 4, "plateau": None})
    record = study.run(slow)
    thread.join()
    assert killed, "no worker was found to kill"
    done = [trial for trial in record.trials if trial.state == "complete"]
    assert len(done) == 4
    for trial in done:
        assert list(trial.history) == list(range(1, trial.config["max_train_epochs"] + 1))


DRIVER = """
import json, sys
from tune_lora import spec, study
study.run(spec.from_mapping(json.loads(sys.argv[1]), "test"))
"""


def test_a_killed_driver_is_continued_by_the_next(tmp_path):
    what = mapping(
        tmp_path, curve={"seconds": 0.4}, scheduler={"name": "none"}, budget={"n_trials": 6, "plateau": None}
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps(what)], start_new_session=True, cwd=Path(__file__).parents[2]
    )
    database = tmp_path / "curves" / "study.db"
    _wait(lambda: database.is_file() and _count(database, "COMPLETE") >= 2 and _count(database, "RUNNING") >= 1, driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = store.load(tmp_path / "curves")
    finished = [trial for trial in before.trials if trial.state == "complete"]
    code = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(what)], cwd=Path(__file__).parents[2], check=False
    ).returncode
    assert code == 0
    after = store.load(tmp_path / "curves")
    assert after.trials[finished[0].number] == finished[0]
    assert sum(trial.state == "complete" for trial in after.trials) == 6
    assert not [trial for trial in after.trials if trial.state in ("running", "waiting")]
    for trial in after.trials:
        if trial.state == "complete":
            assert list(trial.history) == list(range(1, trial.config["max_train_epochs"] + 1))


def _count(database: Path, state: str) -> int:
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return int(connection.execute("select count(*) from trials where state = ?", (state,)).fetchone()[0])
    except sqlite3.OperationalError:  # not made yet
        return 0


def _wait(condition, process, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the driver ended by itself"
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.05)


def test_crash_after_crash_stops_the_study(tmp_path, ray_session):
    with pytest.raises(StudyError, match="crash"):
        study.run(spec(tmp_path, curve={"crash_above": 1e-9}))
    record = store.load(tmp_path / "curves")
    assert 3 <= sum(trial.cause is Cause.CRASH for trial in record.trials) <= 4
    assert all("bug" in trial.message for trial in record.trials if trial.cause is Cause.CRASH)
    assert (tmp_path / "curves" / "trials" / "0" / "traceback.txt").is_file()


@pytest.mark.parametrize(
    ("target", "calibration", "expected"),
    [
        (None, {}, None),
        (None, {"calibrated": False, "targets_from": {"clip": "spec"}}, None),
        (None, {"calibrated": True, "targets_from": {"clip": "reference", "contrast": "spec"}}, None),
        (None, {"calibrated": True, "targets_from": {"clip": "spec", "contrast": "spec"}}, 0.10),
        (0.3, {"calibrated": False}, 0.3),
    ],
)
def test_the_users_own_target_holds_on_the_users_own_scale_only(tmp_path, target, calibration, expected):
    from tune_lora import tuning
    from tune_lora.build import plan

    chosen = spec(tmp_path, budget={"target": target})
    opened = optuna.create_study()
    opened.set_user_attr(store.CALIBRATION, calibration)
    assert tuning._target(opened, plan(chosen)) == expected
