"""What is a fault of the machine and not of the trial, and how it is told."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from pathlib import Path

import optuna
import pytest

from trainables import checkpoints, incarnations, outages
from trainables.curve import Curve
from trainables.ray_adapter import trainable_for
from tune_lora import incidents, recoveries, store

pytestmark = pytest.mark.alone

RAY_DIED = "Failure # 1 (occurred at 2026-11-21_18-01-02)\nThe actor {}\n\tclass_name: Curve\n\tnamespace: 1\n"
RAISED = """Failure # 1 (occurred at 2026-11-21_18-01-02)
The actor died because its node has died.
Failure # 2 (occurred at 2026-11-21_18-05-02)
ray::Curve.train() (pid=7, ip=10.0.0.2)
  File "adapter.py", line 1, in step
trainables.{}
"""


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (RAY_DIED.format("is dead because its worker process has died. node_ip: 1"), "its worker was lost"),
        (RAY_DIED.format("died because its node has died. Node Id: 12ab"), "its node was lost"),
        (
            RAISED.format("ray_adapter.Preempted: the worker was told to end (SIGTERM)"),
            "the worker was told to end (SIGTERM)",
        ),
        (
            RAISED.format("ray_adapter.Lost: No space left on device"),
            "its machine failed it (No space left on device)",
        ),
    ],
)
def test_a_loss_has_a_name(written: str, why: str) -> None:
    assert recoveries.loss(written) == why


def test_a_trial_that_goes_on_is_told_with_the_machine_it_was_on(tmp_path: Path) -> None:
    assert (
        recoveries.line(5, "its worker was lost", tmp_path, "epoch") == "trial 5: its worker was lost; it begins again"
    )
    incarnations.Incarnation.begin(tmp_path).goes_on_from(None)
    said = recoveries.line(5, "its worker was lost", tmp_path, "epoch")
    assert said == f"trial 5 on {os.uname().nodename}: its worker was lost; it begins again"


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EIO", "ESTALE", "EROFS"])
def test_what_a_disk_says_is_the_machines_fault_however_it_is_wrapped(number: str) -> None:
    code = getattr(errno, number)
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = OSError(code, os.strerror(code), "weights.safetensors")
    assert outages.of_storage(wrapped) == f"{os.strerror(code)}: weights.safetensors"
    in_words = RuntimeError(f"Error while serializing: I/O error: {os.strerror(code)} (os error {code})")
    assert outages.of_storage(in_words) == os.strerror(code)


@pytest.mark.parametrize("error", [ValueError("bad"), FileNotFoundError(2, "No such file"), ZeroDivisionError()])
def test_what_is_a_bug_stays_one(error: Exception, tmp_path: Path) -> None:
    assert outages.of_storage(error) is None
    assert outages.of_folder(tmp_path) is None


@pytest.fixture
def small_disk(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_found_by_trying(small_disk: Path) -> None:
    assert outages.of_folder(small_disk) is None
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(b"\0" * 2**20)
    assert outages.of_folder(small_disk) == "No space left on device"
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_a_trial_waits_for_a_disk_that_is_full_and_says_so(small_disk: Path) -> None:
    config = {
        "params": {"learning_rate": 1e-3, "max_train_epochs": 3},
        "trial": {"number": 2, "folder": str(small_disk)},
    }
    trial = trainable_for(Curve(), "score", threads=1)(config)
    trial.train()
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(b"\0" * 2**20)
    threading.Timer(1.5, filler.unlink).start()
    result = trial.train()
    assert result["budget"] == 2 and "cause" not in result
    (line,) = result["happened"]
    assert line.startswith("trial 2: waited ") and "for its disk (No space left on device" in line
    assert "happened" not in trial.train()
    found, damaged = checkpoints.restorable(small_disk)
    assert found is not None and found.budget == 3 and not damaged
    assert [one["budget"] for one in incarnations.reported(small_disk, found)] == [1, 2, 3]


def test_incidents_are_kept_one_by_one_in_order_without_secrets(tmp_path: Path) -> None:
    study = store.open_study(store.sqlite_url(tmp_path), "s", "minimize")
    for line in ("the node of trial 3 was lost", "postgresql://me:hunter2@db/studies was away\nfor 40 s"):
        incidents.note(study, line)
    again = optuna.load_study(study_name="s", storage=store.sqlite_url(tmp_path))
    told = [one.text for one in store.read(again).incidents]
    assert told[0] == "the node of trial 3 was lost"
    assert "hunter2" not in told[1] and "\n" not in told[1] and told[1].endswith("was away for 40 s")


def test_a_terminal_shows_the_last_ones_and_says_how_many_there_are(tmp_path: Path) -> None:
    study = optuna.create_study()
    for index in range(15):
        incidents.note(study, f"thing {index}")
    lines = incidents.shown(store.read(study).incidents)
    assert lines[0] == "3 earlier, in report.html" and len(lines) == 13
    assert [line.split()[-1] for line in lines[1:]] == [str(index) for index in range(3, 15)]


def test_summary_and_report_say_what_happened_and_only_then(tmp_path: Path) -> None:
    from rich.console import Console

    from tune_lora import report
    from tune_lora.view import summary

    study = store.open_study(store.sqlite_url(tmp_path), "s", "minimize")
    console = Console(width=200, record=True, file=(tmp_path / "log").open("w"))
    console.print(summary(store.read(study), tmp_path))
    assert "what happened" not in console.export_text()
    assert "What happened" not in report.render(store.read(study), tmp_path)
    incidents.note(study, "trial 3: <b>its node</b> was lost")
    console.print(summary(store.read(study), tmp_path))
    assert "trial 3: <b>its node</b> was lost" in console.export_text()
    page = report.render(store.read(study), tmp_path)
    assert "What happened" in page and "&lt;b&gt;its node&lt;/b&gt; was lost" in page
