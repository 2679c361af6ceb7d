"""Weights & Biases is told everything, offline and for real, and can never hurt a study."""

from __future__ import annotations

import itertools
import json
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainables.protocol import Cause
from tune_lora import tracking
from tune_lora.store import TrialRecord
from tune_lora.tracking import NoTracker, WandbTracker


def trial(number: int = 0, **changes: Any) -> TrialRecord:
    settled: dict[str, Any] = {
        "state": "complete",
        "value": 0.12,
        "params": {"network_dim": 64},
        "config": {"network_dim": 64, "network_alpha": 48},
        "metrics": {"validation_loss": 0.2},
        "history": {1: {"validation_loss": 0.4}, 2: {"validation_loss": 0.2}},
        "curve": {2: 0.12},
        "seconds": 30.0,
        **changes,
    }
    return TrialRecord(number=number, **settled)


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


BLOCK, FILE_HEADER, CHUNK_HEADER = 32768, 7, 7
FULL, LAST = 1, 4


def records_of(run: Path) -> Iterator[Any]:
    """What a run's file on disk holds: a log of chunks (checksum 4, length 2, kind 1 bytes) in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    (path,) = run.glob("*.wandb")
    log = path.read_bytes()
    assert log.startswith(b":W&B")
    at, message = FILE_HEADER, b""
    while at + CHUNK_HEADER <= len(log):
        if BLOCK - at % BLOCK < CHUNK_HEADER:  # a block's last bytes are filled up
            at += BLOCK - at % BLOCK
        length, kind = struct.unpack_from("<HB", log, at + 4)
        message += log[at + CHUNK_HEADER : at + CHUNK_HEADER + length]
        at += CHUNK_HEADER + length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            message = b""
            yield record


def values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


class TestOffline:
    @pytest.fixture(scope="class")
    def tracked(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
        folder = tmp_path_factory.mktemp("logs")
        tracker = tracking.start("offline", project="tune-lora", group="glow", folder=folder)
        tracker.finished(trial(0))
        tracker.finished(trial(1, state="failed", value=None, cause=Cause.NAN_LOSS, message="loss became NaN"))
        tracker.finished(trial(2, state="pruned", value=None, cause=Cause.PRUNED))
        return folder, tracker.close(60)

    @pytest.fixture(scope="class")
    def runs(self, tracked: tuple[Path, list[str]]) -> dict[str, list[Any]]:
        found = [list(records_of(run)) for run in sorted((tracked[0] / "wandb").glob("offline-run-*"))]
        return {next(r.run.display_name for r in records if r.HasField("run")): records for records in found}

    def test_each_trial_is_a_run_on_disk(self, runs: dict[str, list[Any]]) -> None:
        assert set(runs) == {"trial-000", "trial-001", "trial-002"}

    def test_a_run_has_group_id_and_the_resolved_configuration(self, runs: dict[str, list[Any]]) -> None:
        run = next(r.run for r in runs["trial-000"] if r.HasField("run"))
        assert (run.project, run.run_group) == ("tune-lora", "glow")
        assert run.run_id == tracking.run_id("tune-lora", "glow", 0)
        config = values(run.config.update)
        assert (config["network_dim"], config["network_alpha"]) == (64, 48)
        assert config["trial"]["number"] == 0

    def test_history_goes_by_budget_with_the_scheduler_s_score(self, runs: dict[str, list[Any]]) -> None:
        history = [values(r.history.item) for r in runs["trial-000"] if r.HasField("history")]
        assert [(row["_step"], row["validation_loss"], row.get("score")) for row in history] == [
            (1, 0.4, None),
            (2, 0.2, 0.12),
        ]

    def test_state_and_cause_are_tags_and_a_failure_is_an_exit_code(self, runs: dict[str, list[Any]]) -> None:
        tags = {name: [*next(r.run for r in records if r.HasField("run")).tags] for name, records in runs.items()}
        assert {name: set(found) for name, found in tags.items()} == {
            "trial-000": {"complete"},
            "trial-001": {"failed", "nan_loss"},
            "trial-002": {"pruned"},
        }
        codes = {name: next(r.exit.exit_code for r in records if r.HasField("exit")) for name, records in runs.items()}
        assert codes == {"trial-000": 0, "trial-001": 1, "trial-002": 0}

    def test_one_command_uploads_later(self, tracked: tuple[Path, list[str]]) -> None:
        folder, lines = tracked
        assert lines == [f"Weights & Biases: 3 runs on disk; upload with: wandb sync {folder}/wandb/offline-run-*"]

    def test_nothing_is_printed(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        tracker = tracking.start("offline", project="p", group="quiet", folder=tmp_path)
        tracker.finished(trial())
        tracker.close(60)
        assert capfd.readouterr() == ("", "")


class TestTrouble:
    def test_an_unreachable_server_neither_raises_nor_loses_the_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the discard port: nobody listens
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        tracker = WandbTracker(project="p", group="g", folder=tmp_path, online=True, upload_seconds=4)
        tracker.finished(trial(0))
        tracker.finished(trial(1))
        lines = tracker.close(60)
        assert len(lines) == 2
        assert lines[0].startswith("Weights & Biases: 1 of 2 runs with an error")
        assert "2 runs on disk; upload with: wandb sync" in lines[1]
        assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2

    def test_a_folder_that_cannot_be_written_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        tracker = tracking.start("offline", project="p", group="g", folder=tmp_path / "file")
        tracker.finished(trial())
        (line,) = tracker.close(60)
        assert line.startswith("Weights & Biases: 1 of 1 runs with an error")
        assert "the study itself is whole" in line
        assert "\n" not in line

    def test_a_stuck_writer_is_not_waited_for(self, tmp_path: Path) -> None:
        gate = threading.Event()

        class Stuck(WandbTracker):
            def _write(self, record: TrialRecord) -> Path:
                gate.wait()
                return tmp_path

        tracker = Stuck(project="p", group="g", folder=tmp_path, online=False)
        for number in range(tracking.QUEUE + 5):
            tracker.finished(trial(number))
        (line,) = tracker.close(0.05)
        gate.set()
        assert f"{tracking.QUEUE + 5} not waited for" in line

    def test_after_the_end_nothing_is_taken(self, tmp_path: Path) -> None:
        tracker = tracking.start("offline", project="p", group="g", folder=tmp_path)
        assert tracker.close() == []
        tracker.finished(trial())
        assert not (tmp_path / "wandb").exists()


class TestMode:
    def test_off_writes_nothing(self, tmp_path: Path) -> None:
        tracker = tracking.start("off", project="p", group="g", folder=tmp_path)
        tracker.finished(trial())
        assert isinstance(tracker, NoTracker)
        assert tracker.close() == []
        assert not list(tmp_path.iterdir())

    def test_auto_is_offline_for_who_is_not_logged_in(self) -> None:
        assert tracking._chosen("auto") == "offline"

    def test_auto_is_online_with_a_key_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        assert tracking._chosen("auto") == "online"

    def test_auto_is_online_with_a_login_on_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "netrc"
        path.write_text("machine api.wandb.ai\n  login user\n  password secret\n")
        path.chmod(0o600)
        monkeypatch.setenv("NETRC", str(path))
        assert tracking._chosen("auto") == "online"

    @pytest.mark.parametrize(("said", "mode"), [("offline", "offline"), ("disabled", "off"), ("online", "online")])
    def test_the_environment_overrides_auto_only(self, said: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_MODE", said)
        assert tracking._chosen("auto") == mode
        assert tracking._chosen("offline") == "offline"


def test_a_run_is_known_by_study_and_number() -> None:
    names = [tracking.run_id(*key) for key in itertools.product(["p", "q"], ["a", "b"], [0, 1, 10])]
    assert len(set(names)) == len(names)
    assert tracking.run_id("p", "a", 1) == tracking.run_id("p", "a", 1)
