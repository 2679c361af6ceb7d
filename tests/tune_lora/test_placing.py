"""Trials on a real Ray whose nodes join late, are of several sizes, or do not see the results."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from tests.cluster.loopback import Cluster, cluster, study, wait_until
from tune_lora import store

SLOW = {"curve": {"seconds": 0.7}}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(dict(study(folder, **changes))))
    return path


def results(folder: Path) -> Path:
    return folder / "results" / "curves"


def run(there: Cluster, file: Path) -> subprocess.CompletedProcess[str]:
    return there.run("run", str(file), RAY_ADDRESS=f"127.0.0.1:{there.port}")


def most_at_once(trials: tuple[store.TrialRecord, ...]) -> int:
    """How many ran at the same time, at most."""
    spans = [(trial.started, trial.finished) for trial in trials if trial.started and trial.finished]
    return max(sum(begun <= moment < ended for begun, ended in spans) for moment, _ in spans)


@pytest.mark.slow
def test_a_study_waits_for_its_first_node_and_uses_those_that_join(tmp_path: Path) -> None:
    file = written(tmp_path, **SLOW, resources={"gpu": 0, "wait_hours": 1}, budget={"n_trials": 8, "plateau": None})
    log = tmp_path / "log"
    with cluster(workers=()) as there:
        driver = there.begin("run", str(file), log=log, RAY_ADDRESS=f"127.0.0.1:{there.port}")
        try:
            wait_until(lambda: "waiting for a node" in log.read_text() or driver.poll() is not None, "it waits")
            there.start_worker(1)
            wait_until(lambda: "[1/8]" in log.read_text() or driver.poll() is not None, "a trial has ended")
            there.start_worker(2)
            assert driver.wait(300) == 0, log.read_text()[-3000:]
        finally:
            driver.kill()
            driver.wait()
    record = store.load(results(tmp_path))
    assert record.count("complete") == 8
    assert most_at_once(record.trials) >= 2, "on one CPU at first, then on three"


@pytest.mark.slow
def test_without_a_word_about_waiting_it_is_refused_in_one_line(tmp_path: Path) -> None:
    with cluster(workers=(1, 1)) as there:
        refused = run(there, written(tmp_path, resources={"gpu": 0, "cpu": 2}))
        assert refused.returncode == 2
        assert refused.stderr.splitlines() == [
            "error: resources.cpu: got 2 a trial; must be at most 1, the most that one node has"
        ]


@pytest.mark.slow
def test_a_trial_is_measured_once_a_study_and_packed_by_memory(tmp_path: Path) -> None:
    file = written(tmp_path, resources={"gpu": "auto"})
    with cluster(workers=(2,)) as there:
        first = run(there, file)
        assert first.returncode == 0, first.stdout + first.stderr
        assert "measuring how much memory a trial needs" in first.stdout
        file.write_text(
            yaml.safe_dump({**yaml.safe_load(file.read_text()), "budget": {"n_trials": 4, "plateau": None}})
        )
        second = run(there, file)
        assert second.returncode == 0, second.stdout + second.stderr
        assert "measuring" not in second.stdout and "was measured to need" in second.stdout
    opened = optuna.load_study(study_name=None, storage=f"sqlite:///{results(tmp_path) / 'study.db'}")
    (found,) = opened.user_attrs[store.FOOTPRINTS].values()
    assert 50 * 2**20 < found["memory"] < 4 * 2**30, "of a process with Ray and this package in it"
    assert (found["gpu"], found["device"]) == (0, 0)


@pytest.mark.slow
def test_a_node_that_does_not_see_the_results_is_named_before_anything_starts(tmp_path: Path) -> None:
    hidden = tmp_path / "results"
    hidden.mkdir()
    if shutil.which("unshare") is None or not can_hide(hidden):
        pytest.skip("this machine lets no process have mounts of its own")
    with cluster(workers=(1,)) as there:
        there.start_worker(
            1, before=("unshare", "--mount", "sh", "-c", f'mount -t tmpfs none "{hidden}" && exec "$@"', "sh")
        )
        wait_until(lambda: there.nodes() == 3, "three nodes")
        refused = run(there, written(tmp_path))
        assert refused.returncode == 2, refused.stdout + refused.stderr
        (line,) = refused.stderr.splitlines()
        assert str(results(tmp_path)) in line and "does not see it; must be a path that all nodes see" in line
    assert store.load(results(tmp_path)).trials == ()


def can_hide(folder: Path) -> bool:
    tried = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none "{folder}"'], capture_output=True, check=False
    )
    return tried.returncode == 0
