"""Two real `tune-lora run` on one study in a real PostgreSQL, each with a Ray of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from tests.postgres import Postgres, postgres, skip_where_missing
from tests.tune_lora.studies import RATES
from tune_lora import store

pytestmark = pytest.mark.slow
DEADLINE = 500.0
TOTAL = 20


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    skip_where_missing()
    with postgres() as running:
        yield running


def study_file(folder: Path, url: str, name: str, results: str, seconds: float) -> Path:
    space = {**RATES, "priors": {"known": {"params": {"learning_rate": 1e-3, "max_train_epochs": 4}}}}
    file = folder / f"{results}.yaml"
    content = {
        "name": name,
        "trainer": "curve",
        "curve": {"seconds": seconds},
        "storage": url,
        "results": str(folder / results),
        "space": space,
        "search": {"priors": True},
        "scheduler": {"name": "none"},
        "budget": {"n_trials": TOTAL, "plateau": None},
        "resources": {"cpu": 1, "gpu": 0, "concurrent": 1},
        "tracking": {"wandb": "off"},
    }
    file.write_text(yaml.safe_dump(content))
    return file


@contextmanager
def driver(study: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`tune-lora run` in a process group of its own, with a Ray of its own; gone at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="xr", ignore_cleanup_errors=True) as ray:
        environment = {**os.environ, "RAY_TMPDIR": ray}
        with study.with_suffix(".log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tune_lora.cli", "run", str(study)],
                stdout=log,
                stderr=log,
                env=environment,
                cwd=study.parent,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ended(process: subprocess.Popen[bytes], study: Path) -> None:
    assert process.wait(DEADLINE) == 0, study.with_suffix(".log").read_text(errors="replace")[-3000:]


def trials(server: Postgres, name: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=name, storage=server.url).trials


def wait_for_trials_of(server: Postgres, name: str, drivers: int) -> None:
    """Until so many drivers have ended a trial each."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if name in optuna.get_all_study_names(server.url):
            done = {one.user_attrs[store.DRIVER] for one in trials(server, name) if one.state.is_finished()}
            if len(done) >= drivers:
                return
        time.sleep(0.2)
    raise AssertionError(f"no {drivers} drivers have ended a trial")


def assert_whole(server: Postgres, name: str) -> None:
    """Every number once, exactly as many trials as asked for, the prior once, every report once."""
    found = trials(server, name)
    assert [trial.number for trial in found] == list(range(len(found)))
    lost = [trial for trial in found if trial.user_attrs.get(store.CAUSE) == "infrastructure"]
    assert len(found) - len(lost) == TOTAL
    assert {trial.state for trial in found if trial not in lost} == {TrialState.COMPLETE}
    origins = Counter(trial.user_attrs[store.PROVENANCE] for trial in found)
    assert origins["prior:known"] == 1
    for trial in found:
        if trial not in lost:
            reports = [int(key.removeprefix("report:")) for key in trial.user_attrs if key.startswith("report:")]
            assert sorted(reports) == list(range(1, trial.params["max_train_epochs"] + 1))


def test_two_drivers_share_one_study(server: Postgres, tmp_path: Path) -> None:
    first = study_file(tmp_path, server.url, "shared", "one", seconds=0.4)
    second = study_file(tmp_path, server.url, "shared", "two", seconds=0.4)
    with driver(first) as one, driver(second) as two:
        ended(one, first)
        ended(two, second)
    assert_whole(server, "shared")
    assert len({trial.user_attrs[store.DRIVER] for trial in trials(server, "shared")}) == 2
    for folder in (tmp_path / "one", tmp_path / "two"):  # each has the whole study's tables
        lines = (folder / "shared" / "all_trials.csv").read_text().splitlines()
        assert len(lines) == 1 + TOTAL
        assert server.password not in (folder / "shared" / "study.yaml").read_text()


def test_the_trials_of_a_killed_driver_are_taken_over(server: Postgres, tmp_path: Path) -> None:
    """Both drivers have one results folder, as on a shared disk; one is killed and does not come back."""
    first = study_file(tmp_path, server.url, "taken", "same", seconds=0.4)
    with driver(first) as one, driver(first) as two:
        wait_for_trials_of(server, "taken", drivers=2)
        os.kill(one.pid, signal.SIGKILL)
        one.wait()
        ended(two, first)
    assert_whole(server, "taken")


def test_the_same_command_goes_on_with_what_a_killed_driver_left(server: Postgres, tmp_path: Path) -> None:
    only = study_file(tmp_path, server.url, "again", "only", seconds=0.2)
    with driver(only) as killed:
        wait_for_trials_of(server, "again", drivers=1)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    with driver(only) as again:
        ended(again, only)
    assert_whole(server, "again")
