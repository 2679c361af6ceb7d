"""Weights & Biases is told everything, offline and for real, and can never hurt a study."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.tune_lora.tracked import nobody_is_logged_in, place, sheet, study, trial
from tests.wandb_files import RunOnDisk, runs_in
from trainables.protocol import Cause
from tune_lora import tracking
from tune_lora.tracking import NoTracker
from tune_lora.tracking_feed import WandbTracker


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nobody_is_logged_in(monkeypatch, tmp_path)


class TestOffline:
    @pytest.fixture(scope="class")
    def tracked(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
        folder = tmp_path_factory.mktemp("glow")
        images = sheet(folder, 0)
        (folder / "trials" / "0" / "lora").mkdir()
        (folder / "trials" / "0" / "lora" / "lora.safetensors").write_bytes(b"the winner")
        tracker = WandbTracker(place(folder), online=False)
        begun = [trial(number, 1) for number in range(5)]
        tracker.look(study(*begun), begun)
        ended = [
            trial(0, 3, "complete", images=images),
            trial(1, 2, "failed", cause=Cause.NAN_LOSS, message="loss became NaN"),
            trial(2, 2, "pruned", cause=Cause.PRUNED),
            trial(3, 1, "failed", cause=Cause.INFRASTRUCTURE, message="the node is gone"),
        ]
        tracker.look(study(*ended, begun[4]), ended)
        return folder, tracker.close()

    @pytest.fixture(scope="class")
    def runs(self, tracked: tuple[Path, list[str]]) -> dict[str, RunOnDisk]:
        return runs_in(tracked[0] / "logs" / "wandb")

    def test_each_trial_is_one_run(self, runs: dict[str, RunOnDisk]) -> None:
        assert sorted(runs) == [f"trial-00{number}" for number in range(5)]
        assert {(run.project, run.group) for run in runs.values()} == {("tune-lora", "glow")}
        assert runs["trial-003"].id == tracking.run_id("a-token", 3)

    def test_the_configuration_has_derived_values_and_where_it_is_from(self, runs: dict[str, RunOnDisk]) -> None:
        config = runs["trial-000"].config
        assert (config["network_dim"], config["network_alpha"]) == (64, 48)
        assert config["trial"] == {"number": 0, "provenance": "sampler", "seed": 7, "notes": []}
        assert (config["study"]["space"], config["study"]["sampler"], config["study"]["seed"]) == ("rates", "tpe", 42)

    def test_metrics_go_by_budget(self, runs: dict[str, RunOnDisk]) -> None:
        told = [(line["_step"], line["budget"], line["val_loss"]) for line in runs["trial-000"].history]
        assert told == [(1, 1, 1.0), (2, 2, 0.5), (3, 3, pytest.approx(1 / 3))]
        assert [line.get("score") for line in runs["trial-000"].history] == [None, 0.5, None]
        assert runs["trial-000"].step_metrics["*"] == "budget"

    def test_state_and_cause_are_run_states_and_tags(self, runs: dict[str, RunOnDisk]) -> None:
        assert {name: (run.exit_code, run.tags) for name, run in runs.items()} == {
            "trial-000": (0, ["complete", "best"]),
            "trial-001": (1, ["failed", "nan_loss"]),
            "trial-002": (0, ["pruned"]),
            "trial-003": (1, ["failed", "infrastructure"]),
            "trial-004": (1, ["interrupted"]),
        }
        assert runs["trial-001"].summary["message"] == "loss became NaN"
        assert runs["trial-000"].summary["value"] == pytest.approx(0.1)

    def test_pictures_are_rows_of_a_table(self, runs: dict[str, RunOnDisk]) -> None:
        run = runs["trial-000"]
        assert [("images" in line) for line in run.history] == [False, True, False]
        ((table, files),) = run.tables()
        assert table["columns"] == ["prompt", "seed", "budget", "failed", "image"]
        assert [row[:4] for row in table["data"]] == [
            ["front, happy", 10, 2, False],
            ["side, sad", 11, 2, False],
            ["back", 12, 2, False],
            ["front, black", 13, 2, True],
        ]
        assert len(files) == 4 and all(file.is_relative_to(run.folder.parent) for file in files)
        shades = []
        for file in files:
            with Image.open(file) as picture:
                shades.append(int(np.asarray(picture)[5, 5, 0]))
        assert sorted(shades) == [0, 50, 100, 150]

    def test_the_winner_s_files_are_an_artifact(self, runs: dict[str, RunOnDisk]) -> None:
        kept = {name: [one for one in run.artifacts if one.type == "model"] for name, run in runs.items()}
        assert {name for name, found in kept.items() if found} == {"trial-000"}
        (winner,) = kept["trial-000"]
        assert (winner.name, sorted(winner.aliases)) == ("glow-winner", ["best", "latest"])
        assert [entry.path for entry in winner.manifest.contents] == ["lora.safetensors"]

    def test_one_command_uploads_later(self, tracked: tuple[Path, list[str]]) -> None:
        folder, lines = tracked
        command = f"wandb sync {folder}/logs/wandb/offline-run-*"
        assert lines == [f"Weights & Biases: 5 runs on disk; upload with: {command}"]


class TestGoingOn:
    def test_a_trial_that_goes_on_is_one_run_without_a_step_twice(self, tmp_path: Path) -> None:
        first = WandbTracker(place(tmp_path), online=False)
        first.look(study(trial(0, 2)), [trial(0, 2)])
        first.close()
        assert runs_in(tmp_path / "logs" / "wandb")["trial-000"].tags == ["interrupted"]

        second = WandbTracker(place(tmp_path), online=False)
        for seen in (trial(0, 2), trial(0, 3), trial(0, 4, "complete")):  # what was reported is told again
            second.look(study(seen), [seen])
        second.close()
        run = runs_in(tmp_path / "logs" / "wandb")["trial-000"]
        assert (run.steps, run.tags, run.exit_code) == ([1, 2, 3, 4], ["complete", "best"], 0)

    def test_a_better_trial_takes_the_mark(self, tmp_path: Path) -> None:
        worse, better = trial(1, 2, "complete"), trial(0, 2, "complete")
        first = WandbTracker(place(tmp_path), online=False)
        first.look(study(worse), [worse])
        first.close()
        second = WandbTracker(place(tmp_path), online=False)
        second.look(study(better, worse), [better])
        second.close()
        tags = {name: run.tags for name, run in runs_in(tmp_path / "logs" / "wandb").items()}
        assert tags == {"trial-000": ["complete", "best"], "trial-001": ["complete"]}

    def test_what_was_never_tracked_is_tracked_now(self, tmp_path: Path) -> None:
        earlier, now = trial(0, 2, "complete"), trial(1, 2, "complete")
        tracker = WandbTracker(place(tmp_path), online=False)
        tracker.look(study(earlier, now), [now])
        tracker.close()
        assert sorted(runs_in(tmp_path / "logs" / "wandb")) == ["trial-000", "trial-001"]

    def test_of_several_drivers_each_tracks_its_own(self, tmp_path: Path) -> None:
        theirs, mine = trial(0, 2, "complete"), trial(1, 2, "pruned", cause=Cause.PRUNED)
        tracker = WandbTracker(place(tmp_path, catches_up=False), online=False)
        tracker.look(study(trial(0, 1), mine), [mine])
        tracker.look(study(theirs, mine), [])
        tracker.close()
        assert sorted(runs_in(tmp_path / "logs" / "wandb")) == ["trial-001"]

    def test_a_study_that_has_nothing_new_starts_no_process(self, tmp_path: Path) -> None:
        tracker = WandbTracker(place(tmp_path), online=False)
        tracker.look(study(), [])
        assert tracker.close() == []
        assert not (tmp_path / "logs").exists()


class TestTrouble:
    def test_a_folder_that_cannot_be_written_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        tracker = WandbTracker(place(tmp_path / "file"), online=False)
        tracker.look(study(trial(0, 1)), [trial(0, 1, "complete")])
        (line,) = tracker.close()
        assert "file" in line and "1 run not written" in line
        assert line.endswith("the study itself is whole") and "\n" not in line

    def test_when_the_process_is_killed_its_runs_are_written_all_the_same(self, tmp_path: Path) -> None:
        tracker = WandbTracker(place(tmp_path), online=False)
        begun, ended = [trial(n, 1) for n in range(3)], [trial(n, 3, "complete") for n in range(3)]
        tracker.look(study(*begun), begun)
        mine = [one for one in psutil.Process().children() if "tune_lora.tracking_process" in one.cmdline()]
        while not mine:
            mine = [one for one in psutil.Process().children() if "tune_lora.tracking_process" in one.cmdline()]
        for one in mine:
            os.kill(one.pid, signal.SIGKILL)
        tracker.look(study(*ended), ended)
        tracker.close()
        runs = runs_in(tmp_path / "logs" / "wandb")
        assert {name: run.steps for name, run in runs.items()} == {f"trial-00{n}": [1, 2, 3] for n in range(3)}
        assert runs["trial-000"].tags == ["complete", "best"]

    def test_pictures_that_are_broken_or_gone_are_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "broken.png").write_bytes(b"\x89PNG no more")
        ended = trial(0, 2, "complete", images={1: {"a": "gone.png"}, 2: {"b": "broken.png"}})
        tracker = WandbTracker(place(tmp_path), online=False)
        tracker.look(study(ended), [ended])
        tracker.close()
        run = runs_in(tmp_path / "logs" / "wandb")["trial-000"]
        assert run.steps == [1, 2] and not any("images" in line for line in run.history)

    def test_pictures_made_elsewhere_are_fetched(self, tmp_path: Path) -> None:
        images, away = sheet(tmp_path, 0), tmp_path / "mirror.png"
        path = tmp_path / images[2]["epoch 2"]
        path.rename(away)
        tracker = WandbTracker(place(tmp_path, fetch=lambda name: away.rename(tmp_path / name)), online=False)
        tracker.look(study(trial(0, 2, images=images)), [trial(0, 2, images=images)])
        tracker.close()
        ((table, _),) = runs_in(tmp_path / "logs" / "wandb")["trial-000"].tables()
        assert len(table["data"]) == 4

    def test_after_the_end_nothing_is_taken_and_no_process_is_left(self, tmp_path: Path) -> None:
        tracker = WandbTracker(place(tmp_path), online=False)
        tracker.look(study(trial(0, 1)), [trial(0, 1)])
        tracker.close()
        tracker.look(study(trial(1, 1)), [trial(1, 1)])
        assert sorted(runs_in(tmp_path / "logs" / "wandb")) == ["trial-000"]
        assert not [one for one in psutil.Process().children(recursive=True) if "wandb" in " ".join(one.cmdline())]


class TestMode:
    def test_off_asks_for_nothing(self) -> None:
        def never() -> tracking.Place:
            raise AssertionError("a study without tracking has no place")

        tracker = tracking.start("off", never)
        tracker.look(study(trial(0, 1)), [trial(0, 1)])
        assert isinstance(tracker, NoTracker)
        assert tracker.close() == []

    def test_auto_is_offline_for_who_is_not_logged_in(self) -> None:
        assert tracking.chosen_mode("auto") == "offline"

    def test_auto_is_online_with_a_key_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        assert tracking.chosen_mode("auto") == "online"

    def test_auto_is_online_with_a_login_on_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "netrc"
        path.write_text("machine api.wandb.ai\n  login user\n  password secret\n")
        path.chmod(0o600)
        monkeypatch.setenv("NETRC", str(path))
        assert tracking.chosen_mode("auto") == "online"

    @pytest.mark.parametrize(("said", "mode"), [("offline", "offline"), ("disabled", "off"), ("online", "online")])
    def test_the_environment_overrides_auto_only(self, said: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_MODE", said)
        assert tracking.chosen_mode("auto") == mode
        assert tracking.chosen_mode("offline") == "offline"
