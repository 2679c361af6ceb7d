"""A trial that Ray has given up and that has a checkpoint: it goes on under its own number, after pauses, not for
ever."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.space import Space
from tests.tune_lora.studies import RATES
from trainables import checkpoints
from tune_lora import store
from tune_lora.recoveries import LONGEST_PAUSE_SECONDS, Waiting
from tune_lora.scheduler.pausing import PausingAsha, Slots
from tune_lora.searcher import StudySearcher

FINISHED = StudySearcher.FINISHED


class Driver:
    """A searcher with a clock that is set by hand."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._folder, self.time = folder, 0.0
        self.searcher = StudySearcher(
            store.open_study(store.sqlite_url(folder), "study", "minimize"),
            Space.load(RATES),
            direction="minimize",
            trial_folder=self._trial,
            now=lambda: self.time,
            **{"n_trials_total": 1, "sampler": "random", "retries": 2, **settings},
        )

    def _trial(self, number: int) -> Path:
        return self._folder / "trials" / str(number)

    def begin(self, tune_id: str, *, checkpoint: bool = True) -> int:
        given = self.searcher.suggest(tune_id)
        assert isinstance(given, dict)
        number = int(given["trial"]["number"])
        self.searcher.on_trial_result(tune_id, {"budget": 1, "metrics": {"val_loss": 1.0}})
        if checkpoint:
            checkpoints.write(self._trial(number), 1, lambda folder: (folder / "weights").write_text("w") and None)
        return number

    def lose(self, tune_id: str) -> None:
        self.searcher.on_trial_complete(tune_id, None, error=True)

    def complete(self, tune_id: str) -> None:
        self.searcher.on_trial_complete(tune_id, {"budget": 2, "score": 0.5, "final": True, "metrics": {}})

    @property
    def trials(self) -> tuple[store.TrialRecord, ...]:
        return store.load(self._folder).trials


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path)


def test_a_trial_with_a_checkpoint_outlives_an_outage_under_its_own_number(driver: Driver, tmp_path: Path) -> None:
    driver.begin("a")
    driver.lose("a")
    assert driver.trials[0].state == "running"
    assert driver.searcher.suggest("b") is None, "what has just failed is not tried again at once"
    driver.time += LONGEST_PAUSE_SECONDS
    assert driver.begin("b") == 0
    driver.complete("b")
    assert driver.searcher.suggest("c") == FINISHED
    (trial,) = driver.trials
    assert (trial.state, trial.value, sorted(trial.history)) == ("complete", 0.5, [1, 2])
    (line,) = store.load(tmp_path).incidents
    assert line.text == "trial 0: its workers were lost (1 of 6 times); it goes on from its last checkpoint"


def test_a_trial_that_loses_every_worker_is_given_up_in_the_end(driver: Driver) -> None:
    begun = [driver.begin("0")]
    for attempt in range(1, 8):
        driver.lose(str(attempt - 1))
        driver.time += LONGEST_PAUSE_SECONDS
        begun.append(driver.begin(str(attempt)))
    assert begun == [0] * 7 + [1]
    assert [(t.state, t.provenance) for t in driver.trials] == [("failed", "sampler"), ("running", "retry:0")]


@pytest.mark.parametrize(("retries", "checkpoint"), [(0, True), (2, False)])
def test_without_a_checkpoint_or_where_nothing_is_retried_a_lost_trial_fails(
    tmp_path: Path, retries: int, checkpoint: bool
) -> None:
    driver = Driver(tmp_path, retries=retries)
    driver.begin("a", checkpoint=checkpoint)
    driver.lose("a")
    assert driver.trials[0].state == "failed" and not driver.searcher.waits


def test_where_checkpoints_cannot_be_looked_at_a_trial_is_not_thrown_away(tmp_path: Path) -> None:
    def away(folder: Path) -> bool:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(folder))

    driver = Driver(tmp_path)
    driver.searcher._has_checkpoint = away
    driver.begin("a")
    driver.lose("a")
    assert driver.searcher.waits and driver.trials[0].state == "running"


def test_others_begin_while_one_waits_and_the_total_is_kept(tmp_path: Path) -> None:
    driver = Driver(tmp_path, n_trials_total=2)
    driver.begin("a")
    driver.lose("a")
    assert driver.begin("b") == 1
    assert driver.searcher.suggest("c") is None
    driver.complete("b")
    assert driver.searcher.suggest("c") is None and driver.searcher.is_unfinished
    driver.time += LONGEST_PAUSE_SECONDS
    assert driver.begin("c") == 0
    driver.complete("c")
    assert driver.searcher.suggest("d") == FINISHED
    assert [trial.state for trial in driver.trials] == ["complete", "complete"]


def test_all_that_wait_go_on_before_a_study_that_has_enough_ends(tmp_path: Path) -> None:
    def enough(live: Any) -> str | None:
        return "target reached" if live.record().best else None

    driver = Driver(tmp_path, n_trials_total=9, stop=enough)
    for name in "abc":
        driver.begin(name)
    driver.lose("a")
    driver.lose("b")
    driver.complete("c")
    assert driver.searcher.suggest("d") is None
    driver.time += LONGEST_PAUSE_SECONDS
    assert [driver.begin("d"), driver.begin("e")] == [0, 1]
    assert driver.searcher.suggest("f") == FINISHED


def test_what_waits_when_a_study_is_interrupted_is_left_to_the_next_driver(driver: Driver, tmp_path: Path) -> None:
    driver.begin("a")
    driver.lose("a")
    driver.searcher.interrupt("timeout: 1 h is over")
    assert driver.searcher.suggest("b") == FINISHED
    assert driver.trials[0].state == "running"
    assert Driver(tmp_path).begin("c") == 0


def test_paused_trials_are_not_ended_while_one_waits(driver: Driver) -> None:
    scheduler = PausingAsha("minimize", [1], 2)
    slots = Slots(driver.searcher, scheduler, lambda: 2)
    driver.begin("a")
    driver.lose("a")
    assert slots.suggest("b") is None and not scheduler.nothing_new


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), max_size=60), st.integers(0, 6))
def test_no_trial_goes_on_too_soon_too_often_or_twice_at_a_time(events: list[tuple[int, int]], limit: int) -> None:
    time, put_at, times = 0, {}, dict.fromkeys(range(4), 0)
    waiting = Waiting(limit, lambda: time)
    for number, passes in events:
        if number not in put_at:
            accepted = waiting.put(number)
            assert accepted == (times[number] < limit)
            if accepted:
                put_at[number], times[number] = time, times[number] + 1
        time += passes
        for over in waiting.due():
            assert time - put_at.pop(over) >= 5.0
        assert len(waiting) == len(put_at)
        assert all(time - since < LONGEST_PAUSE_SECONDS for since in put_at.values())
