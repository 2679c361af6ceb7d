"""The Slurm script and the ssh recipe, run as they are on this machine.

Only ``srun``, ``scontrol`` and ``ssh`` are stand-ins: Ray, its token, the study and the end of everything are real.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tune_lora import store
from tune_lora.errors import InputError

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
SLURM, SSH = ROOT / "cluster" / "slurm" / "study.sbatch", ROOT / "cluster" / "ssh" / "start.sh"
STAND_INS = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; echo "srun $*" >>"$ASKED"; exec "$@"',
    "scontrol": 'echo "scontrol $*" >>"$ASKED"; echo node-1',
    "hostname": "echo 127.0.0.1",
    "ssh": 'while [[ $1 == -o ]]; do shift 2; done; shift; echo "ssh $*" >>"$ASKED"; exec bash -c "$*"',
}
MARK = "TUNE_LORA_TEST_OF_SCRIPTS"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with a study and the stand-ins; nothing that was started there may be left."""
    (tmp_path / "bin").mkdir()
    for name, body in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    study = {
        "name": "curves",
        "trainer": "curve",
        "space": {"name": "one", "parameters": {"learning_rate": {"type": "loguniform", "low": 1e-4, "high": 1e-1},
                                                "max_train_epochs": {"type": "categorical", "choices": [2]}}},
        "scheduler": {"name": "none"},
        "budget": {"n_trials": 3, "plateau": None},
        "resources": {"gpu": 0},
        "tracking": {"wandb": "off"},
        "results": str(tmp_path / "results"),
    }  # fmt: skip
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    short = tempfile.mkdtemp(dir="/tmp", prefix="r")  # Ray's sockets need short paths
    (tmp_path / "ray").symlink_to(short)
    yield tmp_path
    for process in started_in(tmp_path):  # only after a failure
        process.kill()
    shutil.rmtree(short, ignore_errors=True)


def started_in(place: Path) -> list[psutil.Process]:
    """Every living process that carries the mark of this test."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(place) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def surroundings(place: Path, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "ASKED": str(place / "asked"),
        "RAY_TMPDIR": str((place / "ray").resolve()),
        "TUNE_LORA_VENV": str(ROOT / ".venv"),
        MARK: str(place),
        **more,
    }


def run(place: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = surroundings(place, **more)
    return subprocess.run(
        command, cwd=place, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=500
    )


def of_slurm(place: Path) -> dict[str, str]:
    """What Slurm tells a job of one node."""
    return {
        "SLURM_JOB_ID": str(free_port()),
        "SLURM_JOB_NODELIST": "node-[1]",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_GPUS_ON_NODE": "0",
        "TUNE_LORA_PRIVATE": str(place / "private"),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_that_nothing_is_left(place: Path) -> None:
    psutil.wait_procs(started_in(place), timeout=30)
    left = [" ".join(process.cmdline())[:150] for process in started_in(place)]
    assert not left, "\n".join(left)


def check_that_it_ran(place: Path, ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert store.load(place / "results" / "curves").count("complete") == 3
    check_that_nothing_is_left(place)


@pytest.mark.slow  # all but its end is in the test of the script that is told to stop
def test_the_slurm_script_runs_a_study_and_leaves_nothing(place: Path) -> None:
    ended = run(place, "bash", str(SLURM), "study.yaml", **of_slurm(place))
    check_that_it_ran(place, ended)
    check_what_slurm_was_asked(place)


def check_what_slurm_was_asked(place: Path) -> None:
    asked = (place / "asked").read_text()
    assert "scontrol show hostnames node-[1]" in asked
    assert "srun ray start --head --node-ip-address=127.0.0.1" in asked
    assert "--dashboard-host=127.0.0.1" in asked
    assert list((place / "private").iterdir()) == [], "the token is gone"


def test_the_ssh_recipe_runs_a_study_on_two_machines_and_leaves_nothing(place: Path) -> None:
    port = free_port()
    ended = run(
        place, "bash", str(SSH), "study.yaml", "me@head", "me@worker", TUNE_LORA_FOLDER=str(place),
        RAY_PORT=str(port), RAY_HEAD_ADDRESS="127.0.0.1", RAY_SIZE="--num-cpus=1 --num-gpus=0",
    )  # fmt: skip
    check_that_it_ran(place, ended)
    asked = (place / "asked").read_text()
    assert f"ray start --head --node-ip-address=127.0.0.1 --port={port} --dashboard-host=127.0.0.1" in asked
    assert f"ray start --address=127.0.0.1:{port}" in asked


def test_slurms_word_that_time_is_up_ends_the_study_in_order(place: Path) -> None:
    study = yaml.safe_load((place / "study.yaml").read_text())
    study |= {"curve": {"seconds": 2.0}, "budget": {"n_trials": 200, "plateau": None}}
    (place / "study.yaml").write_text(yaml.safe_dump(study))
    with (place / "log").open("w") as log, subprocess.Popen(
        ["bash", str(SLURM), "study.yaml"], cwd=place, env=surroundings(place, **of_slurm(place)),
        stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
    ) as script:  # fmt: skip
        wait_until(lambda: has_complete(place) or script.poll() is not None)
        script.send_signal(signal.SIGTERM)  # `--signal=B:TERM@120`: to the script alone
        script.wait(300)
    record = store.load(place / "results" / "curves")
    assert record.stop_reason.startswith(store.INTERRUPTED), (place / "log").read_text()[-3000:]
    assert record.count("complete") < 200
    assert (place / "results" / "curves" / "report.html").is_file(), "it is written down"
    check_that_nothing_is_left(place)
    check_what_slurm_was_asked(place)


def has_complete(place: Path) -> bool:
    folder = place / "results" / "curves"
    try:
        return (folder / "study.db").is_file() and store.load(folder).count("complete") > 0
    except InputError:  # it is just being made
        return False


def wait_until(holds: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(1)
