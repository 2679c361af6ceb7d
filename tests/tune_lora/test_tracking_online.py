"""The real client against a stand-in for the server: what arrives, and what becomes of a run when it does not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.tune_lora.tracked import nobody_is_logged_in, place, sheet, study, trial
from tests.wandb_files import runs_in
from tests.wandb_server import WandbServer
from trainables.protocol import Cause
from tune_lora.tracking import run_id
from tune_lora.tracking_feed import WandbTracker

pytestmark = pytest.mark.alone

PATIENCE_SECONDS = 120.0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    nobody_is_logged_in(monkeypatch, tmp_path)
    with WandbServer() as one:
        for name, value in one.environment.items():
            monkeypatch.setenv(name, value)
        yield one


def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def tracker_of(folder: Path) -> WandbTracker:
    return WandbTracker(place(folder), online=True)


RUN = [run_id("a-token", number) for number in range(4)]


def test_metrics_arrive_while_a_trial_runs_and_states_when_it_ends(server: WandbServer, tmp_path: Path) -> None:
    images = sheet(tmp_path, 0)
    (tmp_path / "trials" / "0" / "lora").mkdir()
    (tmp_path / "trials" / "0" / "lora" / "lora.safetensors").write_bytes(b"the winner")
    tracker = tracker_of(tmp_path)
    begun = [trial(number, 1) for number in range(4)]
    tracker.look(study(*begun), begun)
    until(lambda: RUN[0] in server.runs and server.runs[RUN[0]].steps == [1], "the first epoch has not arrived")
    assert server.runs[RUN[0]].state == "running"

    ended = [
        trial(0, 3, "complete", images=images),
        trial(1, 2, "failed", cause=Cause.OUT_OF_MEMORY, message="asked for 24 GiB"),
        trial(2, 2, "pruned", cause=Cause.PRUNED),
        trial(3, 1, "failed", cause=Cause.INFRASTRUCTURE, message="the node is gone"),
    ]
    tracker.look(study(*ended), ended)
    lines = tracker.close(PATIENCE_SECONDS)

    assert not server.mistakes
    runs = [server.runs[name] for name in RUN]
    assert [run.exit_code for run in runs] == [0, 1, 0, None], "without an end a run becomes crashed"
    assert [run.tags for run in runs] == [
        ["complete", "best"],
        ["failed", "out_of_memory"],
        ["pruned"],
        ["failed", "infrastructure"],
    ]
    assert [run.steps for run in runs] == [[1, 2, 3], [1, 2], [1, 2], [1]]
    assert {run.group for run in runs} == {"glow"}
    assert runs[0].value("network_alpha") == 48
    winner = next(one for one in server.artifacts if one.name == "glow-winner")
    assert (sorted(winner.aliases), winner.files) == (["best", "latest"], {"lora.safetensors": b"the winner"})
    table = next(one for one in server.artifacts if one.type == "run_table")
    assert len([name for name in table.files if name.endswith(".png")]) == 4
    assert lines == [f"Weights & Biases: {server.url}/team/tune-lora/groups/glow"]


def test_a_trial_goes_on_in_its_run_at_the_right_step(server: WandbServer, tmp_path: Path) -> None:
    first = tracker_of(tmp_path)
    first.look(study(trial(0, 2)), [trial(0, 2)])
    first.close(PATIENCE_SECONDS)
    assert (server.runs[RUN[0]].exit_code, server.runs[RUN[0]].tags) == (None, ["interrupted"])

    second = tracker_of(tmp_path)
    for seen in (trial(0, 2), trial(0, 3), trial(0, 4, "complete")):  # it tells again what it has been through
        second.look(study(seen), [seen])
    second.close(PATIENCE_SECONDS)
    run = server.runs[RUN[0]]
    assert (run.steps, run.tags, run.state) == ([1, 2, 3, 4], ["complete", "best"], "finished")
    assert len(server.runs) == 1 and not server.mistakes


def test_a_server_that_says_nothing_holds_nobody_up_and_loses_nothing(server: WandbServer, tmp_path: Path) -> None:
    server.gate.clear()
    tracker = tracker_of(tmp_path)
    for epochs in (1, 2):
        seen = [trial(number, epochs) for number in range(4)]
        tracker.look(study(*seen), seen)
    ended = [trial(number, 3, "complete") for number in range(4)]
    tracker.look(study(*ended), ended)  # a study has gone from its beginning to its end, and no answer yet
    first, last = tracker.close(1)
    assert "not all runs were uploaded within 1 s" in first and first.endswith("the study itself is whole")
    assert last == f"Weights & Biases: 4 runs on disk; upload with: wandb sync {tmp_path}/logs/wandb/offline-run-*"
    runs = runs_in(tmp_path / "logs" / "wandb")
    assert [run.steps for run in runs.values()] == [[1, 2, 3]] * 4
    assert runs["trial-000"].tags == ["complete", "best"]


@pytest.mark.parametrize("status", [401, 404])
def test_a_server_that_refuses_is_one_line_and_the_runs_are_on_disk(
    server: WandbServer, tmp_path: Path, status: int
) -> None:
    server.status = status
    tracker = tracker_of(tmp_path)
    ended = [trial(number, 3, "complete") for number in range(3)]
    tracker.look(study(*ended), ended)
    first, last = tracker.close(PATIENCE_SECONDS)
    assert first.endswith("the study itself is whole") and "\n" not in first
    assert "3 runs on disk; upload with: wandb sync" in last
    assert [run.steps for run in runs_in(tmp_path / "logs" / "wandb").values()] == [[1, 2, 3]] * 3


@pytest.mark.slow
def test_a_server_that_breaks_down_in_the_middle_loses_nothing(server: WandbServer, tmp_path: Path) -> None:
    tracker = tracker_of(tmp_path)
    tracker.look(study(trial(0, 1)), [trial(0, 1)])
    until(lambda: RUN[0] in server.runs and server.runs[RUN[0]].steps == [1], "the first epoch has not arrived")
    server.status = 500
    ended = [trial(0, 3, "complete"), trial(1, 3, "complete")]
    tracker.look(study(*ended), ended)
    first, *_, last = tracker.close(30)
    assert first.endswith("the study itself is whole")
    assert "2 runs on disk" in last
    assert [run.steps for run in runs_in(tmp_path / "logs" / "wandb").values()] == [[1, 2, 3]] * 2


@pytest.mark.slow
def test_what_is_on_disk_is_uploaded_by_the_command_that_is_told(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = WandbTracker(place(tmp_path), online=False)
    ended = [trial(0, 3, "complete", images=sheet(tmp_path, 0)), trial(1, 2, "failed", cause=Cause.NAN_LOSS)]
    tracker.look(study(*ended), ended)
    (line,) = tracker.close()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    command = line.partition("upload with: ")[2]
    subprocess.run(command, shell=True, check=True, capture_output=True, cwd=tmp_path, timeout=PATIENCE_SECONDS)
    runs = [server.runs[name] for name in RUN[:2]]
    assert [(run.name, run.steps, run.state) for run in runs] == [
        ("trial-000", [1, 2, 3], "finished"),
        ("trial-001", [1, 2], "failed"),
    ]
    assert [run.tags for run in runs] == [["complete", "best"], ["failed", "nan_loss"]]
    assert any(one.type == "run_table" and one.is_committed for one in server.artifacts)
    assert not server.mistakes

    again = WandbTracker(place(tmp_path), online=False)
    again.look(study(*ended, trial(2, 1)), [trial(2, 1)])
    (line,) = again.close()
    assert "1 run on disk" in line, "what was uploaded is not told again"


def test_many_runs_share_the_two_processes(server: WandbServer, tmp_path: Path) -> None:
    tracker, over = tracker_of(tmp_path), threading.Event()
    seen: dict[psutil.Process, list[float]] = {}

    def look() -> None:
        while not over.wait(0.05):
            for process in psutil.Process().children(recursive=True):
                seen.setdefault(process, []).append(time.monotonic())

    before = set(psutil.Process().children(recursive=True))
    watcher = threading.Thread(target=look)
    watcher.start()
    ended = [trial(number, 2, "complete") for number in range(15)]
    tracker.look(study(*ended), ended)
    tracker.close(PATIENCE_SECONDS)
    over.set()
    watcher.join()
    assert len(server.runs) == 15 and {run.state for run in server.runs.values()} == {"finished"}
    # The client asks `git` and `uname` once, which is over at once.
    lasting = [process for process, times in seen.items() if process not in before and times[-1] - times[0] > 0.4]
    assert 1 <= len(lasting) <= 2
