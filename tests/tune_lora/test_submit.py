"""tune-lora submit, status and stop against a real Ray with a dashboard that asks for a token."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.loopback import Cluster, cluster, study, wait_until
from tune_lora import store
from tune_lora.errors import InputError

pytestmark = pytest.mark.alone

SECRET = "planted-value-of-a-secret-4711"


@pytest.fixture(scope="module")
def there() -> Iterator[Cluster]:
    with cluster() as found:
        yield found


def written(folder: Path, **changes: object) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(dict(study(folder, **changes))))
    return path


def results(folder: Path) -> Path:
    return folder / "results" / "curves"


def ended(folder: Path) -> int:
    try:
        return sum(trial.counts for trial in store.load(results(folder)).trials)
    except InputError:  # not made yet
        return 0


def running(folder: Path) -> int:
    try:
        return store.load(results(folder)).count("running")
    except InputError:
        return 0


def job_of(said: str) -> str:
    return said.split("job ", 1)[1].split(maxsplit=1)[0]


def assert_absent(text: str, *folders: Path) -> None:
    seen = 0
    for path in (path for folder in folders for path in folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            seen += 1
            assert text.encode() not in path.read_bytes(), f"{path} holds the secret"
    assert seen > 20, "this looks in the wrong place"


def test_a_study_is_submitted_and_followed_to_its_end(there: Cluster, tmp_path: Path) -> None:
    file = written(tmp_path)
    said = there.run("submit", str(file), "--address", there.address, "--env", "PLANTED_KEY", PLANTED_KEY=SECRET)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "[3/3] trial" in said.stdout and "stopped: all 3 trials have run" in said.stdout
    assert "sent sealed: PLANTED_KEY" in said.stdout, "what is sent is said by name"
    assert "Running entrypoint" not in said.stdout
    assert store.load(results(tmp_path)).count("complete") == 3
    assert (results(tmp_path) / "report.html").is_file()
    assert_absent(SECRET, there.folder, tmp_path / "results")
    assert SECRET not in said.stdout + said.stderr


def test_a_wrong_token_is_one_line(there: Cluster, tmp_path: Path) -> None:
    asked = ("submit", str(written(tmp_path)), "--address", there.address)
    wrong = there.run(*asked, RAY_AUTH_TOKEN="0" * 64)
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1), wrong.stderr
    assert "does not know the token" in wrong.stderr
    without = there.run(*asked, RAY_AUTH_MODE="disabled")
    assert (without.returncode, len(without.stderr.splitlines())) == (2, 1), without.stderr
    assert "export RAY_AUTH_MODE=token" in without.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_a_finished_study_is_extended_and_nothing_is_told_twice(there: Cluster, tmp_path: Path) -> None:
    asked = ("submit", str(written(tmp_path)), "--address", there.address)
    assert there.run(*asked).returncode == 0
    before = store.load(results(tmp_path))
    again = there.run(*asked, "--n-trials", "+3")
    assert again.returncode == 0, again.stdout + again.stderr
    seen = there.run("status", str(results(tmp_path)))
    assert "6/6 trials" in seen.stdout, "of what was asked for, not of what the file says"
    assert job_of(again.stdout).endswith("-2"), "the second attempt of the same study"
    after = store.load(results(tmp_path))
    assert after.trials[:3] == before.trials, "nothing is lost"
    assert len(after.trials) == 6 and after.count("complete") == 6
    assert [trial.provenance for trial in after.trials].count("prior:usual") == 1, "no prior is run twice"


@pytest.mark.slow
def test_it_is_refused_while_it_runs_stopped_in_the_middle_and_continued(there: Cluster, tmp_path: Path) -> None:
    # Long enough to be in the middle still after two more commands, on a busy machine too.
    file = written(tmp_path, curve={"seconds": 6.0}, budget={"n_trials": 8, "plateau": None})
    asked = ("submit", str(file), "--address", there.address)
    first = there.run(*asked, "--no-follow")
    assert first.returncode == 0, first.stderr
    name = job_of(first.stdout)
    wait_until(lambda: ended(tmp_path) >= 2 and running(tmp_path) >= 1, "two trials have ended")

    again = there.run(*asked)
    assert again.returncode == 2 and len(again.stderr.splitlines()) == 1, again.stderr
    assert f"runs already as job {name}" in again.stderr and "tune-lora stop" in again.stderr
    seen = there.run("status", "curves", "--address", there.address)  # of several of that name the one that runs
    assert seen.returncode == 0, seen.stderr
    assert f"job {name}: running" in seen.stdout and "/8 trials" in seen.stdout
    assert seen.stdout.endswith("\n"), "the prompt of a shell begins a line"
    assert os.uname().nodename in seen.stdout, "on which machine"

    stopped = there.run("stop", str(file), "--address", there.address)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert f"job {name}: stopped" in stopped.stdout
    before = store.load(results(tmp_path))
    assert 2 <= sum(trial.counts for trial in before.trials) < 8
    assert (results(tmp_path) / "report.html").is_file(), "it was written down before it ended"

    finished = there.run(*asked)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    after = store.load(results(tmp_path))
    assert after.count("complete") == 8 and after.count("running") == 0
    kept = [trial for trial in before.trials if trial.counts]
    assert [after.trials[trial.number] for trial in kept] == kept
    assert [trial.provenance for trial in after.trials].count("prior:usual") == 1
    for trial in after.trials:
        if trial.state == "complete":
            assert list(trial.history) == [1, 2, 3]


@pytest.mark.slow
def test_ctrl_c_while_it_is_followed_detaches(there: Cluster, tmp_path: Path) -> None:
    file = written(tmp_path, curve={"seconds": 1.0}, budget={"n_trials": 4, "plateau": None})
    log = tmp_path / "log"
    follower = there.begin("submit", str(file), "--address", there.address, log=log)
    try:
        wait_until(lambda: "[1/4]" in log.read_text() or follower.poll() is not None, "a trial has ended")
        follower.send_signal(signal.SIGINT)
        assert follower.wait(60) == 130
    finally:
        follower.kill()
        follower.wait()
    said = log.read_text()
    name = job_of(said)
    assert f"detached; job {name} goes on" in said
    follow = f"tune-lora status {name} --address {there.address} --follow"
    assert follow in said
    again = there.run(*follow.split()[1:])
    assert again.returncode == 0 and "[1/4] trial" in again.stdout, "from the beginning"
    assert store.load(results(tmp_path)).count("complete") == 4


TRAINER = """
import helper

def train(params, trial):
    for epoch in range(1, 3):
        yield {"score": helper.score(params["rate"]), "rows": helper.rows(trial)}
"""
HELPER = """
def score(rate):
    return (rate - 1) ** 2

def rows(trial):
    return 1.0
"""


@pytest.mark.slow
def test_a_trainer_of_ones_own_goes_along_with_what_lies_beside_it(there: Cluster, tmp_path: Path) -> None:
    (tmp_path / "my_trainer.py").write_text(TRAINER)
    (tmp_path / "helper.py").write_text(HELPER)
    file = written(
        tmp_path,
        trainer="custom",
        trainable="my_trainer:train",
        custom={"horizon": 2},
        space="space.yaml",
        objective={"metric": "score", "direction": "minimize"},
        search={"n_startup_trials": 2},
    )
    (tmp_path / "space.yaml").write_text("name: rates\nparameters:\n  rate: {type: uniform, low: 0.0, high: 2.0}\n")
    asked = ("submit", str(file), "--address", there.address)
    said = there.run(*asked)
    assert said.returncode == 0, said.stdout + said.stderr
    assert (results(tmp_path) / "inputs" / "code" / "helper.py").is_file()
    (tmp_path / "notes.txt").write_text("so that the package is another one")
    again = there.run(*asked, "--n-trials", "4")
    assert again.returncode == 0, again.stdout + again.stderr
    assert store.load(results(tmp_path)).count("complete") == 4


@pytest.mark.slow
def test_plain_ray_job_submit_runs_the_same_study(there: Cluster, tmp_path: Path) -> None:
    asked = [
        str(Path(sys.executable).with_name("ray")), "job", "submit", "--address", there.address, "--working-dir", ".",
        "--", str(Path(sys.executable).with_name("tune-lora")), "run", "study.yaml",
    ]  # fmt: skip
    written(tmp_path, space="space.yaml", search={"n_startup_trials": 2})
    (tmp_path / "space.yaml").write_text(
        "name: rates\nparameters:\n  learning_rate: {type: loguniform, low: 0.001, high: 0.1}\n"
    )

    def submitted(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*asked, *more], cwd=tmp_path, env=there.environment(), capture_output=True, text=True, timeout=500
        )

    first = submitted()
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    (tmp_path / "notes.txt").write_text("so that the package is another one")
    (tmp_path / "results_are_elsewhere").mkdir()
    second = submitted("--n-trials", "+2")
    assert second.returncode == 0, second.stdout[-3000:] + second.stderr[-3000:]
    assert store.load(results(tmp_path)).count("complete") == 5
    lost = submitted("--set", "results=results")
    assert lost.returncode != 0 and "would be lost with the job" in lost.stdout + lost.stderr
