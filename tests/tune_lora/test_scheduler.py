"""Ray's schedulers behind our rule about reports. Nothing is replaced but the cluster."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from tune_lora import scheduler as schedulers
from tune_lora.errors import InputError
from tune_lora.store import TrialRecord


def trial(number: int) -> Any:
    return SimpleNamespace(trial_id=f"tune-{number}", config={"trial": {"number": number}})


def asha(**settings: Any) -> Any:
    return schedulers.build("asha", **{"grace": 2, "eta": 3, "max_budget": 20} | settings)


def report(scheduler: Any, number: int, budget: int, **result: Any) -> str:
    return str(scheduler.on_trial_result(None, trial(number), {"budget": budget} | result))


def added(scheduler: Any, count: int) -> Any:
    for number in range(count):
        scheduler.on_trial_add(None, trial(number))
    return scheduler


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((2, 3, 20), (2, 6, 18)),
        ((1, 3, 9), (1, 3)),
        ((1, 10, 1001), (1, 10, 100, 1000)),
        ((4, 2, 4), ()),
        ((1, 1.5, 6), (1, 2, 3, 5)),
    ],
)
def test_rungs(settings: tuple[int, float, int], expected: tuple[int, ...]) -> None:
    assert schedulers.rungs(*settings) == expected


@pytest.mark.parametrize("settings", [(0, 3, 9), (1, 1, 9), (1, float("nan"), 9)])
def test_rungs_that_cannot_be(settings: tuple[int, float, int]) -> None:
    with pytest.raises(InputError, match="grace must be 1 or more, eta above 1"):
        schedulers.rungs(*settings)


def test_the_worst_at_a_rung_is_stopped_and_the_best_goes_on() -> None:
    scheduler = added(asha(), 4)
    assert [report(scheduler, number, 2, score=float(number)) for number in range(3)] == ["CONTINUE", "STOP", "STOP"]
    assert report(scheduler, 3, 2, score=-1.0) == "CONTINUE"


def test_more_is_better_when_the_direction_says_so() -> None:
    scheduler = added(asha(direction="maximize"), 2)
    assert [report(scheduler, number, 2, score=1.0 - number) for number in range(2)] == ["CONTINUE", "STOP"]


@pytest.mark.parametrize("name", ["asha", "median"])
def test_a_score_that_is_not_finite_stops_at_once_and_a_missing_one_is_passed_over(name: str) -> None:
    scheduler = added(schedulers.build(name), 2)
    assert report(scheduler, 0, 2) == "CONTINUE"
    assert report(scheduler, 0, 1, score=math.nan) == "STOP"
    assert report(scheduler, 1, 1, score=math.inf) == "STOP"
    scheduler.on_trial_complete(None, trial(0), {"budget": 1, "score": math.nan})
    scheduler.on_trial_complete(None, trial(1), {})


def test_a_final_report_is_never_stopped() -> None:
    scheduler = added(asha(), 9)
    for number in range(8):
        report(scheduler, number, 6, score=0.0)
    assert report(scheduler, 8, 6, score=99.0, final=True) == "CONTINUE"


def test_a_trial_with_a_short_horizon_meets_the_others_at_the_same_budgets() -> None:
    scheduler = added(asha(max_budget=1000), 3)
    for budget in (2, 6):
        report(scheduler, 0, budget, score=1.0)
    short = {"budget": 4, "score": 0.5, "final": True}
    scheduler.on_trial_complete(None, trial(1), short)  # complete at 4: counts at rung 2, and only there
    assert report(scheduler, 2, 2, score=0.9) == "STOP"
    assert report(scheduler, 2, 6, score=0.9) == "CONTINUE"


def test_what_a_restarted_trial_reports_again_is_not_counted_again() -> None:
    scheduler = added(asha(), 3)
    report(scheduler, 0, 2, score=1.0)
    report(scheduler, 1, 2, score=0.5)
    scheduler.on_trial_add(None, SimpleNamespace(trial_id="another", config={"trial": {"number": 1}}))
    before = scheduler.debug_string()
    again = SimpleNamespace(trial_id="another", config={"trial": {"number": 1}})
    assert scheduler.on_trial_result(None, again, {"budget": 2, "score": 99.0}) == "CONTINUE"
    assert scheduler.debug_string() == before


@pytest.mark.parametrize("name", ["asha", "median"])
def test_a_continued_study_prunes_as_one_that_never_stopped(name: str) -> None:
    settings: dict[str, Any] = {"max_budget": 20, "n_startup_trials": 3, "n_warmup_steps": 2}
    straight, continued = (added(schedulers.build(name, **settings), 12) for _ in range(2))
    records = []
    for number in range(8):
        curve: dict[int, float] = {}
        for budget in (2, 6):
            curve[budget] = (number * 5 % 8) / budget
            if report(straight, number, budget, score=curve[budget]) == "STOP":
                break
        records.append(TrialRecord(number, "pruned", None, {}, {}, curve=curve))
    continued.replay(records)
    decisions = [
        [report(scheduler, 8 + index, 2, score=score) for index, score in enumerate((0.0, 1.0, 1.7, 3.5))]
        for scheduler in (straight, continued)
    ]
    assert decisions[0] == decisions[1]
    assert set(decisions[0]) == {"CONTINUE", "STOP"}


def test_the_median_stops_the_worse_half_after_start_up_and_warm_up() -> None:
    scheduler = added(schedulers.build("median", n_startup_trials=2, n_warmup_steps=2), 4)
    for number in range(2):
        for budget in (1, 2, 3):
            assert report(scheduler, number, budget, score=float(number)) == "CONTINUE"
    assert report(scheduler, 2, 1, score=9.0) == "CONTINUE"
    assert report(scheduler, 2, 2, score=9.0) == "STOP"
    assert report(scheduler, 3, 2, score=0.1) == "CONTINUE"


def test_none_stops_nothing_and_an_unknown_name_is_explained() -> None:
    scheduler = schedulers.build("none")
    assert scheduler.on_trial_result(None, trial(0), {"budget": 1, "score": 1e9}) == "CONTINUE"  # type: ignore[arg-type]
    with pytest.raises(InputError, match="did you mean 'asha'"):
        schedulers.build("ahsa")


def test_the_score_is_not_demanded_of_every_report() -> None:
    assert asha().metric is None


def test_the_median_may_watch_what_every_report_has() -> None:
    scheduler = added(schedulers.build("median", n_startup_trials=2, n_warmup_steps=2, watch="val_loss"), 4)
    for number in range(2):
        for budget in (1, 2, 3):
            assert report(scheduler, number, budget, metrics={"val_loss": 0.1}) == "CONTINUE"
    # A good score, which is not what is compared, does not save a trial; a final report is never stopped.
    assert report(scheduler, 2, 2, score=0.0, metrics={"val_loss": 9.0}, final=True) == "CONTINUE"
    assert report(scheduler, 2, 2, score=0.0, metrics={"val_loss": 9.0}) == "STOP"
    assert report(scheduler, 3, 2, score=9.0, metrics={"val_loss": 0.05}) == "CONTINUE"


def test_what_is_watched_is_replayed_from_the_history() -> None:
    scheduler = schedulers.build("median", n_startup_trials=2, n_warmup_steps=1, watch="val_loss")
    history = {budget: {"val_loss": 0.1} for budget in (1, 2, 3)}
    scheduler.replay(TrialRecord(number, "complete", 0.5, {}, {}, history=history) for number in range(3))
    scheduler.on_trial_add(None, trial(3))
    assert report(scheduler, 3, 2, metrics={"val_loss": 9.0}) == "STOP"
