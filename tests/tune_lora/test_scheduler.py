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
    scheduler = added(asha(max_budget=1000), 4)
    for budget in (2, 6):
        report(scheduler, 0, budget, score=1.0)
    short = {"budget": 4, "score": 0.5, "final": True}
    scheduler.on_trial_complete(None, trial(1), short)  # complete at 4: counts at rung 2, and only there
    assert report(scheduler, 2, 2, score=0.9) == "STOP"
    assert report(scheduler, 3, 6, score=0.9) == "CONTINUE"


def test_what_a_restarted_trial_reports_again_is_not_counted_again() -> None:
    scheduler = added(asha(), 3)
    report(scheduler, 0, 2, score=1.0)
    report(scheduler, 1, 2, score=0.5)
    scheduler.on_trial_add(None, SimpleNamespace(trial_id="another", config={"trial": {"number": 1}}))
    before = scheduler.debug_string()
    again = SimpleNamespace(trial_id="another", config={"trial": {"number": 1}})
    assert scheduler.on_trial_result(None, again, {"budget": 2, "score": 99.0}) == "CONTINUE"
    assert scheduler.debug_string() == before


def test_a_continued_study_prunes_as_one_that_never_stopped() -> None:
    straight, continued = (added(schedulers.build("asha", max_budget=20), 12) for _ in range(2))
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


def test_none_stops_nothing_and_an_unknown_name_is_explained() -> None:
    scheduler = schedulers.build("none")
    assert scheduler.on_trial_result(None, trial(0), {"budget": 1, "score": 1e9}) == "CONTINUE"  # type: ignore[arg-type]
    with pytest.raises(InputError, match="did you mean 'asha'"):
        schedulers.build("ahsa")


def test_the_score_is_not_demanded_of_every_report() -> None:
    assert asha().metric is None


def test_a_tie_with_the_cut_off_goes_on() -> None:
    scheduler = added(asha(), 4)
    assert [report(scheduler, number, 2, score=0.7) for number in range(4)] == ["CONTINUE"] * 4


def test_a_trial_that_failed_later_does_not_lift_the_cut_off() -> None:
    scheduler = added(asha(), 4)
    report(scheduler, 0, 2, score=0.1)
    report(scheduler, 1, 2, score=0.0)
    for number, cause in enumerate(("nan_loss", "infrastructure")):
        scheduler.on_trial_complete(None, trial(number), {"budget": 3, "cause": cause})
    assert report(scheduler, 2, 2, score=0.9) == "CONTINUE"
    assert report(scheduler, 3, 2, score=1.0) == "STOP"


def test_where_every_report_breaks_a_constraint_the_smaller_excess_goes_on() -> None:
    scheduler = added(asha(), 4)
    decisions = [
        report(scheduler, number, 2, score=0.0, metrics={"constraint_excess": excess})
        for number, excess in enumerate((2.0, 3.0, 1.0))
    ]
    assert decisions == ["CONTINUE", "STOP", "CONTINUE"]
    assert report(scheduler, 3, 2, score=9.0) == "CONTINUE"  # feasible, so better than all of them


def test_metrics_are_read_as_tune_flattens_them() -> None:
    scheduler = added(asha(), 3)
    report(scheduler, 0, 2, score=5.0)
    assert report(scheduler, 1, 2, score=0.0, **{"metrics/constraint_excess": 0.5}) == "STOP"


def test_every_name_is_understood_as_its_class_is() -> None:
    classes = "ASHAScheduler MedianPruner PercentilePruner HyperbandPruner SuccessiveHalvingPruner PatientPruner"
    for name in (*classes.split(), "WilcoxonPruner", "NopPruner"):
        schedulers.build(name)
    with pytest.raises(InputError, match="did you mean 'MedianPruner'"):
        schedulers.build("MedianPrunner")


def test_an_unknown_setting_is_explained() -> None:
    with pytest.raises(InputError, match="unknown setting 'graze'; did you mean 'grace'"):
        schedulers.build("asha", graze=3)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("asha", {"grace": 3, "eta": 2}, (3, 6, 12)),
        ("hyperband", {"grace": 1, "eta": 3}, (1, 3, 9)),
        ("successive_halving", {}, (2, 6, 18)),
        ("asha", {"grace": "auto"}, (3, 9)),
        ("median", {}, ()),
        ("none", {}, ()),
    ],
)
def test_trainers_are_told_where_it_decides(name: str, settings: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert schedulers.decides_at(name, max_budget=20, **settings) == expected
