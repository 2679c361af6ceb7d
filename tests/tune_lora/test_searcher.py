"""The searcher over a real SQLite study: what it suggests, what it writes, and how it goes on after a dead driver."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray.tune.search import Searcher

from search_spaces.space import Space
from trainables import checkpoints
from trainables.protocol import Cause
from tune_lora import store
from tune_lora.knowledge import Knowledge
from tune_lora.searcher import StudySearcher
from tune_lora.store import StudyRecord, TrialRecord

FINISHED = Searcher.FINISHED


@pytest.fixture
def space() -> Space:
    return Space.load("lora_tiny")


class Study:
    """A study folder, and searchers on it as drivers come and go."""

    def __init__(self, folder: Path, space: Space) -> None:
        self.folder, self.space = folder, space
        self.study = store.open_study(store.sqlite_url(folder), "study", "minimize")

    def searcher(self, **settings: Any) -> StudySearcher:
        given: dict[str, Any] = {"direction": "minimize", "n_trials_total": 20, "seed": 42, "knowledge": Knowledge()}
        given |= settings
        return StudySearcher(self.study, given.pop("space", self.space), trial_folder=self.trial, **given)

    def trial(self, number: int) -> Path:
        return self.folder / "trials" / str(number)

    def checkpoint(self, number: int) -> None:
        checkpoints.write(self.trial(number), 2, lambda folder: (folder / "weights").write_text("w"))

    @property
    def record(self) -> StudyRecord:
        return store.read(optuna.load_study(study_name="study", storage=store.sqlite_url(self.folder)))

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        return self.record.trials


@pytest.fixture
def study(tmp_path: Path, space: Space) -> Study:
    return Study(tmp_path, space)


def result(budget: int, score: float | None = None, **more: Any) -> dict[str, Any]:
    """What Tune hands over: flattened."""
    found = {"budget": budget, "metrics/val_loss": 1 / budget, "seconds": 2.0 * budget, "done": False} | more
    return found if score is None else found | {"score": score}


def complete(searcher: StudySearcher, tune_id: str, score: float) -> None:
    searcher.on_trial_result(tune_id, result(1))
    searcher.on_trial_complete(tune_id, result(2, score, final=True))


def run(searcher: StudySearcher, end: Callable[[str, int], None], first: int = 0) -> list[dict[str, Any]]:
    """Suggests and ends trials, one at a time, until the searcher is done."""
    configurations: list[dict[str, Any]] = []
    while (given := searcher.suggest(f"{first}-{len(configurations)}")) != FINISHED:
        assert isinstance(given, dict)
        end(f"{first}-{len(configurations)}", len(configurations))
        configurations.append(given)
    return configurations


def test_a_suggestion_is_the_whole_configuration_and_where_its_trial_lives(study: Study, space: Space) -> None:
    given = study.searcher(decide_at=(2, 6)).suggest("a")
    assert isinstance(given, dict)
    assert {*space.parameters, *space.derived, *space.fixed} == set(given["params"])
    assert given["trial"] == {"number": 0, "folder": str(study.trial(0)), "seed": 42, "decide_at": [2, 6]}


def test_what_is_stored_is_exactly_what_was_trained(study: Study, space: Space) -> None:
    searcher = study.searcher(n_trials_total=12)
    given = run(searcher, lambda tune_id, index: complete(searcher, tune_id, float(index)))
    assert len(given) == 12
    for trial, configuration in zip(study.trials, given, strict=True):
        assert (trial.state, trial.value) == ("complete", float(trial.number))
        assert trial.config == configuration["params"]
        assert trial.params.items() <= configuration["params"].items()
        assert space.violations(trial.config) == []
        assert trial.history == {1: {"val_loss": 1.0}, 2: {"val_loss": 0.5}}
        assert trial.curve == {2: float(trial.number)}
        assert trial.metrics == {"val_loss": 0.5}
        assert trial.seconds == 4.0
    assert study.record.stop_reason == "all 12 trials have run"
    with sqlite3.connect(study.folder / "study.db") as database:
        assert database.execute("select count(*) from trials where state = 'COMPLETE'").fetchone() == (12,)


def test_a_trial_stopped_by_the_scheduler_is_pruned_with_its_intermediate_values(study: Study) -> None:
    searcher = study.searcher()
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 0.9))
    searcher.on_trial_complete("a", result(2, 0.8, **{"images/grid": str(study.trial(0) / "images" / "2.png")}))
    (trial,) = study.trials
    assert (trial.state, trial.cause, trial.value) == ("pruned", Cause.PRUNED, None)
    assert trial.curve == {1: 0.9, 2: 0.8}
    assert trial.images == {2: {"grid": "trials/0/images/2.png"}}


@pytest.mark.parametrize("cause", [Cause.NAN_LOSS, Cause.OUT_OF_MEMORY, Cause.TRIAL_TIMEOUT])
def test_a_failed_trial_keeps_its_cause_its_message_and_its_metrics(study: Study, cause: Cause) -> None:
    searcher = study.searcher()
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1))
    searcher.on_trial_complete("a", {"budget": 2, "cause": cause.value, "message": "asked 3 GB", "metrics/loss": 7.0})
    (trial,) = study.trials
    assert (trial.state, trial.cause, trial.message, dict(trial.metrics)) == (
        "failed",
        cause,
        "asked 3 GB",
        {"loss": 7.0},
    )
    assert list(trial.history) == [1]


def test_a_score_that_is_not_a_number_ends_as_nan_loss_and_never_stays_running(study: Study) -> None:
    searcher = study.searcher()
    searcher.suggest("a")
    searcher.on_trial_complete("a", result(1, math.nan))
    assert (study.trials[0].state, study.trials[0].cause) == ("failed", Cause.NAN_LOSS)


def test_a_report_without_the_metric_raises_nothing(study: Study) -> None:
    searcher = study.searcher()
    searcher.suggest("a")
    searcher.on_trial_result("a", {"training_iteration": 1})
    searcher.on_trial_result("nobody", {})
    searcher.on_trial_complete("nobody", None, error=True)
    searcher.on_trial_complete("a", result(2, final=True))
    assert study.trials[0].cause is Cause.CRASH
    assert "no score" in study.trials[0].message


def test_results_of_a_restarted_trial_are_neither_doubled_nor_dropped(study: Study) -> None:
    searcher = study.searcher()
    searcher.suggest("a")
    for budget, score in ((1, None), (2, 0.8), (1, None), (2, 0.7), (3, None)):
        searcher.on_trial_result("a", result(budget, score, seconds=10.0 if budget == 2 else 1.0))
    searcher.on_trial_complete("a", result(4, 0.5, final=True, seconds=5.0))
    (trial,) = study.trials
    assert list(trial.history) == [1, 2, 3, 4]
    assert trial.curve == {2: 0.8, 4: 0.5}
    assert trial.seconds == 25.0  # 10 before the first restart, 10 before the second, 5 since


def test_a_lost_worker_is_tried_again_up_to_a_limit_and_does_not_count(study: Study) -> None:
    searcher = study.searcher(n_trials_total=1, retries=2)
    given = [searcher.suggest("0")]
    for attempt in range(2):
        searcher.on_trial_complete(str(attempt), None, error=True)
        given.append(searcher.suggest(str(attempt + 1)))
    assert all(isinstance(configuration, dict) for configuration in given)
    assert len({str(configuration["params"]) for configuration in given}) == 1  # type: ignore[index]  # checked above
    assert len({configuration["trial"]["seed"] for configuration in given}) == 1  # type: ignore[index]  # checked above
    complete(searcher, "2", 0.5)
    assert searcher.suggest("3") == FINISHED
    assert [(t.provenance, t.state) for t in study.trials] == [
        ("sampler", "failed"),
        ("retry:0", "failed"),
        ("retry:1", "complete"),
    ]
    assert {t.cause for t in study.trials[:2]} == {Cause.INFRASTRUCTURE}


def test_after_its_last_retry_another_configuration_is_tried(study: Study) -> None:
    searcher = study.searcher(n_trials_total=1, retries=1)
    for attempt in range(2):
        searcher.suggest(str(attempt))
        searcher.on_trial_complete(str(attempt), None, error=True)
    searcher.suggest("2")
    assert [t.provenance for t in study.trials] == ["sampler", "retry:0", "sampler"]


def test_nothing_is_finished_while_a_running_trial_may_have_to_run_again(study: Study) -> None:
    searcher = study.searcher(n_trials_total=2)
    searcher.suggest("a")
    searcher.suggest("b")
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("b", None, error=True)
    again = searcher.suggest("c")
    assert isinstance(again, dict)
    complete(searcher, "a", 1.0)
    assert searcher.suggest("d") is None
    complete(searcher, "c", 1.0)
    assert searcher.suggest("d") == FINISHED


def test_three_crashes_in_a_row_stop_the_study_and_are_not_retried(study: Study) -> None:
    searcher = study.searcher()
    crash = {"budget": 1, "cause": "crash", "message": "KeyError: 'unet'"}

    def end(tune_id: str, index: int) -> None:
        complete(searcher, tune_id, 1.0) if index == 2 else searcher.on_trial_complete(tune_id, crash)

    assert len(run(searcher, end)) == 6  # two, one good one, three
    assert study.record.stop_reason.startswith("crash: ")
    assert "KeyError: 'unet'" in study.record.stop_reason


def test_the_stop_rule_ends_the_study_with_its_reason_and_lets_running_trials_finish(study: Study) -> None:
    searcher = study.searcher(stop=lambda live: "target reached" if live.record().best else None)
    searcher.suggest("a")
    searcher.suggest("b")
    complete(searcher, "a", 0.01)
    assert searcher.suggest("c") == FINISHED
    complete(searcher, "b", 0.5)
    assert study.record.stop_reason == "target reached"
    assert study.record.count("complete") == 2


# --- reference configurations ----------------------------------------------------------------------------------------


def test_priors_run_first_whole_and_never_twice(tmp_path: Path) -> None:
    study = Study(tmp_path, Space.load("lora_v2_1"))
    searcher = study.searcher(knowledge=None)
    given = searcher.suggest("a")
    assert isinstance(given, dict)
    assert (given["params"]["learning_rate"], given["params"]["network_alpha"]) == (1.3e-4, 96)
    complete(searcher, "a", 0.2)
    again = study.searcher(knowledge=None)
    again.suggest("b")
    assert [t.provenance for t in study.trials] == ["prior:trial_3_5", "sampler"]
    assert "learning_rate" not in study.trials[0].params  # outside the range, so Optuna cannot hold it
    assert study.trials[0].params["network_dim"] == 128
    assert study.trials[0].config["learning_rate"] == 1.3e-4


def test_a_prior_that_breaks_a_rule_is_refused_with_the_reason_and_counted_once(tmp_path: Path, space: Space) -> None:
    prior = {"name": "wild", "params": space.defaults() | {"network_alpha_ratio": 1.0}}
    wild = Space.from_mapping({**space.source, "priors": [prior]})
    study = Study(tmp_path, wild)
    for _ in range(2):
        searcher = study.searcher(knowledge=None, sampler="random")
        assert "alpha equal to the rank" in searcher.refused_references["prior:wild"]
    searcher.suggest("a")
    assert study.trials[0].provenance == "sampler"
    assert study.record.rejections["alpha_equals_dim"] == 1


# --- going on --------------------------------------------------------------------------------------------------------


def test_a_dead_drivers_trials_are_continued_from_a_checkpoint_or_run_again(study: Study) -> None:
    dead = study.searcher()
    first, second = dead.suggest("a"), dead.suggest("b")
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    dead.on_trial_result("a", result(1))
    dead.on_trial_result("a", result(2, 0.7))
    study.checkpoint(0)

    searcher = study.searcher()
    continued, again = searcher.suggest("c"), searcher.suggest("d")
    assert isinstance(continued, dict)
    assert isinstance(again, dict)
    assert continued == first
    assert (again["params"], again["trial"]["number"]) == (second["params"], 2)
    searcher.on_trial_result("c", result(2, 0.6))
    searcher.on_trial_complete("c", result(3, 0.5, final=True))
    complete(searcher, "d", 0.4)
    continued_trial, lost, retried = study.trials
    assert (continued_trial.state, continued_trial.value, continued_trial.curve) == ("complete", 0.5, {2: 0.7, 3: 0.5})
    assert (lost.state, lost.cause) == ("failed", Cause.INFRASTRUCTURE)
    assert (retried.state, retried.provenance) == ("complete", "retry:1")


def test_an_interrupted_run_leaves_its_trials_running_and_the_next_one_goes_on(study: Study) -> None:
    searcher = study.searcher(n_trials_total=3)
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 0.9))
    study.checkpoint(0)
    searcher.interrupt("timeout: 1 h is over")
    assert searcher.suggest("b") == FINISHED
    searcher.on_trial_complete("a", result(1, 0.9))
    assert study.trials[0].state == "running"
    assert study.record.stop_reason == "timeout: 1 h is over"
    after = study.searcher(n_trials_total=3)
    run(after, lambda tune_id, index: complete(after, tune_id, 1.0), first=1)
    assert [t.state for t in study.trials] == ["complete"] * 3


def test_a_continued_study_tries_what_an_uninterrupted_one_would_have(tmp_path: Path, space: Space) -> None:
    def score(params: dict[str, Any]) -> float:
        return abs(math.log(params["learning_rate"] / 2e-3)) + params["network_alpha_ratio"]

    def play(study: Study, total: int, first: int) -> list[dict[str, Any]]:
        searcher, tried = study.searcher(n_trials_total=total), []
        while isinstance(given := searcher.suggest(f"{first}-{len(tried)}"), dict):
            complete(searcher, f"{first}-{len(tried)}", score(given["params"]))
            tried.append(given["params"])
        return tried

    for name in ("straight", "halved"):
        (tmp_path / name).mkdir()
    straight, halved = Study(tmp_path / "straight", space), Study(tmp_path / "halved", space)
    assert play(straight, 18, 0) == play(halved, 12, 0) + play(halved, 18, 1)


def test_rejected_draws_are_stored_and_go_on_counting(study: Study) -> None:
    first = study.searcher(n_trials_total=15, sampler="random")
    run(first, lambda tune_id, index: complete(first, tune_id, 1.0))
    counted = dict(study.record.rejections)
    assert counted["high_alpha_safety"] > 0
    second = study.searcher(n_trials_total=30, sampler="random")
    run(second, lambda tune_id, index: complete(second, tune_id, 1.0), first=1)
    assert all(study.record.rejections[name] >= count for name, count in counted.items())
    assert sum(study.record.rejections.values()) > sum(counted.values())


def test_training_time_goes_on_where_a_dead_driver_left_it(study: Study) -> None:
    dead = study.searcher()
    dead.suggest("a")
    dead.on_trial_result("a", result(3, 0.7, seconds=30.0))
    study.checkpoint(0)
    after = study.searcher()
    after.suggest("b")
    after.on_trial_result("b", result(3, 0.7, seconds=30.0))  # told again with the checkpoint it belongs to
    after.on_trial_complete("b", result(4, 0.5, seconds=40.0, final=True))
    assert study.trials[0].seconds == 40.0


def test_what_a_dead_driver_left_running_is_ended_however_many_trials_are_asked_for(study: Study) -> None:
    dead = study.searcher()
    for number in range(2):
        dead.suggest(str(number))
        dead.on_trial_result(str(number), result(1))
        study.checkpoint(number)
    complete(dead, "1", 0.1)
    after = study.searcher(n_trials_total=1, stop=lambda _: "target reached")
    assert isinstance(after.suggest("a"), dict)
    complete(after, "a", 0.5)
    assert after.suggest("b") == FINISHED
    assert [t.state for t in study.trials] == ["complete", "complete"]


def test_workers_lost_one_after_another_end_the_study(study: Study) -> None:
    searcher = study.searcher()
    given = run(searcher, lambda tune_id, _: searcher.on_trial_complete(tune_id, None, error=True))
    assert len(given) == 10
    assert study.record.stop_reason.startswith("infrastructure: ")


def test_what_runs_when_the_study_has_enough_is_unfinished(study: Study) -> None:
    searcher = study.searcher(stop=lambda live: "target reached" if live.record().best else None)
    searcher.suggest("a")
    searcher.suggest("b")
    assert searcher.is_unfinished
    complete(searcher, "a", 0.01)
    assert searcher.suggest("c") == FINISHED
    assert searcher.is_unfinished
    complete(searcher, "b", 0.5)
    assert not searcher.is_unfinished
