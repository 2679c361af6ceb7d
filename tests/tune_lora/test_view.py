"""What a terminal shows, and what a log file gets instead."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from trainables.protocol import Cause
from tune_lora import view, wording
from tune_lora.store import StudyRecord, TrialRecord


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(renderable: RenderableType, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined] # it is the StringIO above


def trial(number: int, value: float | None = 0.5, **changes: Any) -> TrialRecord:
    settled: dict[str, Any] = {"state": "complete", "params": {}, "config": {}, "seconds": 10.0, **changes}
    return TrialRecord(number=number, value=value, **settled)


class TestSummary:
    @pytest.fixture(scope="class")
    def text(self, example: Any) -> str:
        return shown(view.summary(example.record, example.folder))

    def test_counts_by_state_cause_and_rule(self, text: str) -> None:
        assert "10 completed · 9 pruned · 4 failed · 1 running · 13 infeasible draws refused" in text
        assert "failed, nan loss: 1" in text
        assert "failed, out of memory: 1" in text
        assert "refused draws, high_dim_few_epochs: 9" in text
        assert "24 trials were asked for" in text

    def test_the_best_with_its_configuration_and_the_base_beside_it(self, text: str, example: Any) -> None:
        best = example.record.best
        assert f"best: trial {best.number}, score {best.value:.4g}, 59.1% better than the untrained base (0.31)" in text
        ratio = best.config["network_alpha"] / best.config["network_dim"]
        assert f"{best.config['network_alpha']} (ratio {ratio:.3f})" in text
        assert "untrained base" in text
        assert "0.21" in text

    def test_what_the_reader_must_know(self, text: str) -> None:
        assert "uncalibrated" in text
        assert "not verified" in text

    def test_only_files_that_exist_are_named_and_the_next_commands(self, text: str, example: Any) -> None:
        assert str(example.folder / "study.db") in text
        assert str(example.folder / "report.html") not in text
        assert f"tune-lora top {example.folder}" in text

    def test_a_study_in_which_nothing_completed(self, tmp_path: Path) -> None:
        text = shown(view.summary(StudyRecord("s", "minimize", ()), tmp_path))
        assert "no trial yet" in text
        assert "no trial completed" in text
        assert "tune-lora train" not in text


class TestTop:
    def test_best_first_with_alpha_s_ratio_and_what_is_shared_said_once(self, example: Any) -> None:
        text = shown(view.top_table(example.record, 3))
        ranks = [line.split()[:2] for line in text.splitlines() if line.split()[:1] in (["1"], ["2"], ["3"])]
        assert ranks == [[str(at), str(done.number)] for at, done in enumerate(example.record.ranked()[:3], start=1)]
        assert "(ratio 0." in text
        assert text.count("min_snr_gamma 5") == 1

    def test_nothing_completed(self) -> None:
        text = shown(view.top_table(StudyRecord("s", "minimize", (trial(0, None, state="pruned"),))))
        assert text.strip() == "no trial has completed yet (1 trial: 1 pruned)"


class TestLiveView:
    def test_a_log_gets_one_line_for_each_trial_that_ended(self) -> None:
        console = Console(file=io.StringIO(), width=200)
        first, second = trial(0), trial(1, None, state="failed", cause=Cause.NAN_LOSS)
        with view.LiveView(console) as live:
            live.update(StudyRecord("s", "minimize", (first,)), total=2, force=True)
            live.update(StudyRecord("s", "minimize", (first,)), total=2, force=True)
            live.update(StudyRecord("s", "minimize", (first, second)), total=2, force=True)
        assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined] # it is the StringIO above
            "[1/2] trial 0 completed 0.5, best 0.5 (trial 0)",
            "[2/2] trial 1 failed (nan loss), best 0.5 (trial 0)",
        ]

    def test_trials_of_an_earlier_run_are_not_told_again(self) -> None:
        console = Console(file=io.StringIO())
        long_ago = trial(0, finished=dt.datetime(2020, 1, 1))  # noqa: DTZ001 - Optuna keeps local times without a zone
        with view.LiveView(console) as live:
            live.update(StudyRecord("s", "minimize", (long_ago,)), total=2, force=True)
        assert console.file.getvalue() == ""  # type: ignore[attr-defined] # it is the StringIO above

    def test_pictures_are_not_drawn_faster_than_they_can_be_read(self) -> None:
        clock, console = Clock(), Console(file=io.StringIO(), force_terminal=True, width=120)
        with view.LiveView(console, clock) as live:
            clock.now = 1.0
            live.update(StudyRecord("first", "minimize", ()), total=2)
            live.update(StudyRecord("second", "minimize", ()), total=2)
            clock.now += view.REFRESH_SECONDS
            live.update(StudyRecord("third", "minimize", ()), total=2)
            live.update(StudyRecord("fourth", "minimize", ()), total=2, force=True)
        drawn = console.file.getvalue()  # type: ignore[attr-defined] # it is the StringIO above
        assert [name in drawn for name in ("first", "second", "third", "fourth")] == [True, False, True, True]

    def test_the_panel_has_progress_counts_best_and_time_left(self, example: Any) -> None:
        text = shown(view.panel(example.record, 30))
        assert "23/30 trials" in text
        assert "1 running" in text
        assert "13 infeasible draws refused" in text
        assert f"(trial {example.record.best.number})" in text
        assert "left" in text and "best so far" in text

    def test_of_a_study_that_has_its_trials_nothing_is_left(self) -> None:
        text = shown(view.panel(StudyRecord("s", "minimize", (trial(0),)), 1))
        assert "1/1 trials" in text and "left" not in text
        assert "best" in text and "so far" not in text

    def test_names_are_not_markup(self) -> None:
        evil = "[bold red]x[/] [link=https://evil.example]"
        record = StudyRecord(evil, "minimize", (trial(0, config={evil: evil}),), stop_reason=evil, rejections={evil: 1})
        assert evil in shown(view.panel(record, 1))
        assert evil in shown(view.summary(record, Path()))
        assert evil in shown(view.top_table(record))


class TestTimeLeft:
    def test_unknown_before_the_first_trial_ended(self) -> None:
        assert view.time_left(StudyRecord("s", "minimize", ()), 10) is None

    def test_mean_of_the_ended_ones_shared_by_those_that_run(self) -> None:
        running = [trial(n, None, state="running", seconds=1.0) for n in (2, 3)]
        record = StudyRecord("s", "minimize", (trial(0, seconds=10), trial(1, seconds=30), *running))
        assert view.time_left(record, 10) == 8 * 20 / 2

    def test_nothing_left_when_all_have_ended(self) -> None:
        assert view.time_left(StudyRecord("s", "minimize", (trial(0),)), 1) == 0


class TestWording:
    @pytest.mark.parametrize(
        ("config", "text"),
        [
            ({"network_alpha": 96, "network_dim": 128}, "96 (ratio 0.750)"),
            ({"network_alpha": 32, "network_dim": 256}, "32 (ratio 0.125)"),
            ({"network_alpha": 96}, "96"),
            ({"network_alpha": 96, "network_dim": 0}, "96"),
            ({"lora_alpha": 32, "lora_rank": 16}, "32 (ratio 2.000)"),
            ({"learning_rate": 6e-5}, "6e-5"),
            ({"learning_rate": 1.3e-4}, "1.3e-4"),
            ({"groupdro_enabled": True}, "True"),
            ({"text_encoder": None}, "none"),
            ({"max_train_epochs": 100000}, "100000"),
        ],
    )
    def test_a_setting(self, config: dict[str, Any], text: str) -> None:
        assert wording.setting(next(iter(config)), config) == text

    @pytest.mark.parametrize(
        ("direction", "base", "best", "text"),
        [
            ("minimize", 0.4, 0.3, "25.0% better than the untrained base (0.4)"),
            ("minimize", 0.4, 0.5, "25.0% worse than the untrained base (0.4)"),
            ("maximize", 0.4, 0.5, "25.0% better than the untrained base (0.4)"),
            ("minimize", None, 0.5, ""),
        ],
    )
    def test_improvement_says_which_way(self, direction: Any, base: float | None, best: float, text: str) -> None:
        baseline = {} if base is None else {"score": base}
        assert wording.improvement(StudyRecord("s", direction, (trial(0, best),), baseline=baseline)) == text

    def test_a_study_names_what_it_is_compared_with(self) -> None:
        guess = {"baseline": "largest class named always"}
        record = StudyRecord("s", "maximize", (trial(0, 0.5),), baseline={"score": 0.4}, calibration=guess)
        assert wording.improvement(record) == "25.0% better than the largest class named always (0.4)"

    @pytest.mark.parametrize(("seconds", "text"), [(12, "12 s"), (600, "10 min"), (11100, "3 h 05 min")])
    def test_durations(self, seconds: float, text: str) -> None:
        assert wording.duration(seconds) == text

    def test_a_verified_winner_has_no_caveat(self) -> None:
        record = StudyRecord("s", "minimize", (trial(0),), verification={"trial": 0})
        assert wording.caveats(record) == []
        assert wording.caveats(dataclasses.replace(record, verification={})) != []
