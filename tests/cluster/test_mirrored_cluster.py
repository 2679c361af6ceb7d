"""A cluster whose nodes share no disk: a node is lost with its disk, and its trial goes on elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.cluster.loopback import Cluster, cluster, marked, study, wait_until
from tests.s3 import CREDENTIALS, S3, s3, skip_where_missing
from trainables.mirror_store import MirrorStore
from trainables.node_folders import NODE_FOLDER
from tune_lora import store

pytestmark = pytest.mark.slow
EPOCHS, TRIALS = 8, 5


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    skip_where_missing()
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3(tmp_path) as running:
        running.make("studies")
        yield running


@pytest.fixture
def nodes(server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Cluster, Path, Path]]:
    """A head that trains nothing, and two nodes, each with a folder of its own."""
    disks = tmp_path / "one", tmp_path / "two"
    with cluster(workers=()) as found:
        for disk in disks:
            disk.mkdir()
            monkeypatch.setenv(NODE_FOLDER, str(disk))
            found.start_worker(1)
        monkeypatch.setenv(NODE_FOLDER, str(tmp_path / "head"))
        yield found, *disks


def study_file(folder: Path, mirror: str) -> Path:
    space = {
        "name": "one",
        "parameters": {"learning_rate": {"type": "loguniform", "low": 1e-4, "high": 1e-1}},
        "fixed": {"max_train_epochs": EPOCHS},
    }
    content = {
        **study(folder),
        "name": "mirrored",
        "space": space,
        "curve": {"seconds": 0.6},
        "results": str(folder / "results"),
        "budget": {"n_trials": TRIALS, "plateau": None},
        "resources": {"cpu": 1, "gpu": 0, "concurrent": 2, "mirror": mirror},
    }
    file = folder / "mirrored.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def checkpoints_on(disk: Path) -> dict[str, int]:
    """The newest budget of each trial that is at work on a node."""
    found: dict[str, int] = {}
    for path in disk.glob("mirrored-*/trials/*/checkpoint/*"):
        if path.name.isdigit() and not (path.parents[1] / ".mirrored").exists():
            found[path.parents[1].name] = max(found.get(path.parents[1].name, 0), int(path.name))
    return found


def lose(cluster_: Cluster, disk: Path) -> None:
    """The node with this folder is gone at once, and its disk with it."""
    for process in marked(cluster_.folder):
        try:
            if process.environ().get(NODE_FOLDER) == str(disk):
                process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    shutil.rmtree(disk, ignore_errors=True)


def test_a_lost_nodes_trial_goes_on_from_its_mirror(
    nodes: tuple[Cluster, Path, Path], server: S3, tmp_path: Path
) -> None:
    found, _, doomed = nodes
    uri = server.uri("studies", "runs")
    log = tmp_path / "run.log"
    running = found.begin(
        "run", str(study_file(tmp_path, uri)), "--set", f"resources.address=127.0.0.1:{found.port}", log=log
    )
    try:
        wait_until(lambda: max(checkpoints_on(doomed).values(), default=0) >= 3, "a trial is at work on the node")
        (number,) = [name for name, budget in checkpoints_on(doomed).items() if budget >= 3]
        lose(found, doomed)
        assert running.wait(400) == 0, log.read_text()[-3000:]
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
    record = store.load(tmp_path / "results" / "mirrored")
    assert [trial.state for trial in record.trials] == ["complete"] * TRIALS
    for trial in record.trials:
        assert sorted(trial.history) == list(range(1, EPOCHS + 1))
    mirror = MirrorStore(uri)
    later = mirror.get_bytes(f"mirrored/trials/{number}/reports/0002.jsonl")
    assert later is not None
    origin = json.loads(later.splitlines()[0])["from"]
    assert origin is not None and origin[1] >= 2  # not from the beginning
    kept = mirror.listing("mirrored")
    assert {"study.db", "study.yaml", "report.html", "all_trials.csv", "best_config.yaml"} <= set(kept)
    mirror.get("mirrored/study.db", tmp_path / "copy" / "study.db")
    assert [one.value for one in store.load(tmp_path / "copy").trials] == [one.value for one in record.trials]
    leaves = b"".join(path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file())
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"].encode() not in leaves
