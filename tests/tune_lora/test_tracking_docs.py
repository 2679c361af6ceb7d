"""docs/tracking.md: a study from its file to the server, to disk, and on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.wandb_files import runs_in
from tests.wandb_server import WandbServer
from trainables.protocol import Cause
from tune_lora import spec, store, tracking_messages, tracking_process, tracking_runs
from tune_lora.tracking import CLOSE_SECONDS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "tracking.md").read_text("utf-8")
STUDY = TEXT.partition("```yaml\n")[2].partition("```")[0]
(COMMAND,) = [block.strip() for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)]


def tune_lora(folder: Path, server: WandbServer | None, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {
        "NETRC": str(folder / "no-netrc"),
        "PYTHONPATH": str(ROOT),
        **(server.environment if server else {}),
    }
    command = [sys.executable, "-m", "tune_lora.cli", *arguments]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return " ".join((ended.stdout + ended.stderr).split())


def test_the_study_of_the_manual_is_one() -> None:
    found = spec.from_mapping(yaml.safe_load(STUDY), "docs/tracking.md")
    assert (found.tracking.wandb, found.tracking.project) == ("auto", "tune-lora")


def test_what_the_manual_says_is_so() -> None:
    for cause in Cause:
        assert f"`{cause.value}`" in TEXT
    for mode in ("auto", "online", "offline", "off"):
        assert f"`{mode}`" in TEXT
    assert f"`{tracking_messages.INTERRUPTED}`" in TEXT and f"`{tracking_messages.BEST}`" in TEXT
    assert (
        f"within {tracking_runs.INIT_SECONDS:.0f} s" in TEXT and f"within {tracking_runs.FINISH_SECONDS:.0f} s" in TEXT
    )
    assert f"for {tracking_process.OFFLINE_SECONDS / 60:.0f} minutes" in TEXT and CLOSE_SECONDS == 60


@pytest.mark.slow
def test_a_study_is_tracked_from_its_file_to_the_server_and_goes_on_there(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    with WandbServer() as server:
        said = tune_lora(tmp_path, server, "run", "study.yaml")
        assert f"{server.url}/team/tune-lora/groups/rates" in said
        tune_lora(tmp_path, server, "resume", "results/rates", "--n-trials", "+2")
        record = store.load(tmp_path / "results" / "rates")
        runs = {run.name: run for run in server.runs.values()}
    assert not server.mistakes
    assert sorted(runs) == [f"trial-{trial.number:03d}" for trial in record.trials] and len(runs) == 6
    for trial in record.trials:
        run = runs[f"trial-{trial.number:03d}"]
        assert run.steps == list(trial.history)
        assert run.state == tracking_messages.end_of(trial)
        assert ("best" in run.tags) == (record.best is not None and trial.number == record.best.number)
        assert run.value("network_alpha") == trial.config["network_alpha"]


@pytest.mark.slow
def test_without_a_login_one_command_uploads_it_later(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    said = tune_lora(tmp_path, None, "run", "study.yaml")
    assert "4 runs on disk" in said and "logs/wandb/offline-run-*" in said
    before = runs_in(tmp_path / "results" / "rates" / "logs" / "wandb")
    with WandbServer() as server:
        environment = {
            **os.environ,
            **server.environment,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        subprocess.run(COMMAND, shell=True, check=True, capture_output=True, cwd=tmp_path, env=environment, timeout=300)
        assert {run.name: run.steps for run in server.runs.values()} == {n: run.steps for n, run in before.items()}
    assert not server.mistakes
