"""Faults on a real Ray of this machine: what they cost a study, and what it says. The other kinds, on several machines:
`test_clusters`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.faults.processes import training_processes
from trainables.protocol import Cause
from tune_lora import cli, store, study
from tune_lora import spec as specs
from tune_lora.errors import StudyError

pytestmark = pytest.mark.alone

TUNE_LORA = str(Path(sys.executable).with_name("tune-lora"))
DEADLINE_SECONDS = 600


def mapping(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "s",
        "trainer": "curve",
        "space": {
            "name": "rates",
            "parameters": {
                "learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1},
                "max_train_epochs": {"type": "categorical", "choices": [4, 6]},
            },
        },
        "curve": {"seconds": 0.2},
        "search": {"n_startup_trials": 4, "seed": 7},
        "scheduler": {"name": "none"},
        "budget": {"n_trials": 3, "plateau": None},
        "resources": {"cpu": 1, "concurrent": 2},
        "tracking": {"wandb": "off"},
        "results": str(folder),
    } | changes


def spec(folder: Path, **changes: Any) -> specs.StudySpec:
    return specs.from_mapping(mapping(folder, **changes), "test")


def epochs(results: Path) -> Counter[tuple[str, int]]:
    """Reports that were written, by trial and budget, over all starts of each."""
    found: Counter[tuple[str, int]] = Counter()
    for path in results.glob("trials/*/reports/*.jsonl"):
        for line in path.read_text().splitlines():
            if '"metrics"' in line:
                found[path.parts[-3], yaml.safe_load(line)["budget"]] += 1
    return found


def is_whole(record: store.StudyRecord, total: int) -> bool:
    """Whether all trials ran to their end, each with every report once."""
    done = [trial for trial in record.trials if trial.state == "complete"]
    assert len(done) == total == sum(trial.counts for trial in record.trials)
    assert not [trial for trial in record.trials if trial.state in ("running", "waiting")]
    for trial in done:
        assert list(trial.history) == list(range(1, trial.config["max_train_epochs"] + 1))
    return True


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.03)


def test_a_worker_that_is_told_to_end_writes_down_its_report_and_its_trial_goes_on(tmp_path, ray_session) -> None:
    told: list[int] = []

    def tell() -> None:
        until(lambda: len(epochs(tmp_path / "s")) >= 3 and bool(training_processes()))
        process = training_processes()[0]
        process.send_signal(signal.SIGTERM)
        told.append(process.pid)

    thread = threading.Thread(target=tell)
    thread.start()
    # It may not be started again, so that a loss which counted would end the trial.
    record = study.run(spec(tmp_path, budget={"n_trials": 3, "plateau": None, "retries": 0}))
    thread.join()
    assert told and is_whole(record, 3)
    assert len(record.trials) == 3
    assert max(epochs(tmp_path / "s").values()) == 1, "an epoch was trained twice"
    assert [one.text for one in record.incidents if "the worker was told to end (SIGTERM)" in one.text]
    until(lambda: not psutil.pid_exists(told[0]))


def command(*words: str) -> int:
    """The exit code of the real command line, in this process."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    return int(ended.value.code or 0)


def test_sigterm_to_the_driver_and_a_damaged_checkpoint_cost_an_epoch_each(tmp_path, ray_session, capsys) -> None:
    folder, file = tmp_path / "s", tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(mapping(tmp_path, scheduler={"name": "none"}, curve={"seconds": 0.4})))

    def tell() -> None:
        until(lambda: len(epochs(folder)) >= 4)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=tell)
    thread.start()
    assert command("run", str(file)) == 143
    thread.join()
    assert "stopped: interrupted by SIGTERM; what was running goes on when the study does" in capsys.readouterr().out
    before = store.load(folder)
    assert not before.count("failed")
    damaged = []
    for trial in before.trials:
        whole = sorted(path for path in folder.glob(f"trials/{trial.number}/checkpoint/*") if path.name.isdigit())
        if trial.state == "running" and len(whole) == 2:
            (whole[-1] / "curve.json").write_text("")
            damaged.append(trial.number)
    assert damaged
    assert command("run", str(file)) == 0
    record = store.load(folder)
    assert is_whole(record, 3)
    assert set(epochs(folder).values()) <= {1, 2}, "an epoch was written more than twice"
    said = [one.text for one in record.incidents if "is damaged (curve.json has 0 bytes" in one.text]
    assert len(said) == len(damaged)
    assert "what happened:" in capsys.readouterr().out


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("may not mount")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_ends_the_study_with_one_line_and_it_goes_on_when_there_is_room(small_disk, ray_session) -> None:
    filler = small_disk / "filler"

    def fill() -> None:
        until(lambda: len(epochs(small_disk / "s")) >= 3)
        with filler.open("wb", buffering=0) as stream:
            for size in (2**16, 2**10, 1):
                try:
                    while True:
                        os.write(stream.fileno(), b"\0" * size)
                except OSError:
                    continue

    thread = threading.Thread(target=fill)
    thread.start()
    with pytest.raises(StudyError, match=r"No space left on device|disk is full") as stopped:
        study.run(spec(small_disk))
    thread.join()
    assert len(str(stopped.value).splitlines()) == 1 and "nothing of it is lost" in str(stopped.value)
    filler.unlink()
    before = [trial for trial in store.load(small_disk / "s").trials if trial.state == "complete"]
    assert not list((small_disk / "s").glob("trials/*/checkpoint/*.part"))
    record = study.run(spec(small_disk))
    assert is_whole(record, 3)
    assert [record.trials[one.number] for one in before] == before
    assert not [trial for trial in record.trials if trial.cause is Cause.CRASH]


@pytest.mark.slow
def test_sigterm_to_a_driver_is_one_line_and_the_same_command_goes_on(tmp_path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(mapping(tmp_path)))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    words = [TUNE_LORA, "run", str(file)]
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as driver:
        try:
            until(lambda: len(epochs(tmp_path / "s")) >= 2 or driver.poll() is not None)
            driver.send_signal(signal.SIGTERM)
            said, _ = driver.communicate(timeout=DEADLINE_SECONDS)
        finally:
            driver.kill()
    assert driver.returncode == 143, said
    assert "Traceback" not in said
    assert said.count("stopped: interrupted by SIGTERM; what was running goes on when the study does") == 1
    before = store.load(tmp_path / "s")
    assert before.count("running") >= 1 and not before.count("failed")
    again = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=2 * DEADLINE_SECONDS)
    assert again.returncode == 0, again.stdout + again.stderr
    record = store.load(tmp_path / "s")
    assert is_whole(record, 3)
    gone_on = [one for one in before.trials if one.state == "running" and record.trials[one.number].state == "complete"]
    said = [one.text for one in record.incidents if "it goes on from its last checkpoint" in one.text]
    assert len(said) == len(gone_on)
