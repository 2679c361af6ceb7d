"""Pause and promote on a real Ray session: who goes on, how the study ends, and what continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainables.protocol import Cause
from tune_lora import spec as specs
from tune_lora import study
from tune_lora.store import StudyRecord

EPOCHS = 6
SPACE = {
    "name": "rates",
    "parameters": {"learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1}},
    "fixed": {"max_train_epochs": EPOCHS},
}


def spec(folder: Path, **changes: Any) -> specs.StudySpec:
    mapping = {
        "name": "pausing",
        "trainer": "curve",
        "curve": {"noise": 0.0},
        "space": SPACE,
        "search": {"sampler": "random", "seed": 3},
        "scheduler": {"name": "asha", "grace": 2, "eta": 2, "promote": True},
        "budget": {"n_trials": 8, "plateau": None},
        "resources": {"cpu": 1, "concurrent": 2},
        "tracking": {"wandb": "off"},
        "results": str(folder),
    }
    return specs.from_mapping({**mapping, **changes}, "test")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ray_session: Any) -> tuple[StudyRecord, Path]:
    folder = tmp_path_factory.mktemp("results")
    return study.run(spec(folder)), folder


def test_the_study_ends_with_every_trial_complete_or_pruned(finished: tuple[StudyRecord, Path]) -> None:
    record, _ = finished
    assert record.stop_reason == "all 8 trials have run"
    assert record.count("complete") + record.count("pruned") == len(record.trials) == 8
    assert record.count("complete") >= 1


def test_trials_end_at_rungs_and_the_best_at_each_went_on(finished: tuple[StudyRecord, Path]) -> None:
    record, _ = finished
    ended = {trial.number: trial.last_budget for trial in record.trials}
    assert {2, EPOCHS} <= set(ended.values()) <= {2, 4, EPOCHS}
    for rung in (2, 4):
        came = sorted((trial for trial in record.trials if rung in trial.curve), key=lambda trial: trial.curve[rung])
        assert all(ended[trial.number] > rung for trial in came[: len(came) // 2])


def test_a_trial_that_was_never_promoted_is_pruned_with_all_it_reported(finished: tuple[StudyRecord, Path]) -> None:
    record, _ = finished
    for trial in record.trials:
        assert list(trial.history) == list(range(1, trial.last_budget + 1))
        if trial.state == "pruned":
            assert trial.cause is Cause.PRUNED
            assert trial.value is None


def test_it_goes_on_with_more_trials(finished: tuple[StudyRecord, Path]) -> None:
    before, folder = finished
    after = study.run(spec(folder), n_trials="+4")
    assert len(after.trials) == 12
    assert after.trials[:8] == before.trials
    assert after.count("complete") + after.count("pruned") == 12


def test_paused_trials_of_a_study_that_was_cut_short_go_on(tmp_path: Path, ray_session: Any) -> None:
    slow = {"curve": {"noise": 0.0, "seconds": 0.2}}
    budget = {"n_trials": 6, "plateau": None}
    cut = study.run(spec(tmp_path, **slow, budget={**budget, "timeout_hours": 2.5 / 3600}))
    assert cut.count("running") >= 1
    whole = study.run(spec(tmp_path, **slow, budget=budget))
    assert (
        whole.count("complete") + whole.count("pruned") == 6 == len([trial for trial in whole.trials if trial.counts])
    )
    assert whole.count("running") == 0
    assert whole.best is not None
