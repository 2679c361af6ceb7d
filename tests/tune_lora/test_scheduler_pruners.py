"""Optuna's pruners behind a Tune scheduler: each stops what it is made to stop, and reads what it is told to read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from tune_lora import scheduler as schedulers
from tune_lora import spec as specs
from tune_lora import study
from tune_lora.scheduler_spec import SchedulerSpec
from tune_lora.store import TrialRecord

SOON: dict[str, Any] = {"n_startup_trials": 2, "n_warmup_steps": 2}


def trial(number: int) -> Any:
    return SimpleNamespace(trial_id=f"tune-{number}", config={"trial": {"number": number}})


def play(scheduler: Any, number: int, curve: list[float], *, ends: bool = True) -> str:
    """Plays one trial to its end; the last decision, and the budget where it was STOP."""
    scheduler.on_trial_add(None, trial(number))
    for budget, score in enumerate(curve, start=1):
        final = ends and budget == len(curve)
        result = {"budget": budget, "score": score, "final": final, "metrics": {"val_loss": score}}
        decision = scheduler.on_trial_result(None, trial(number), result)
        if decision == "STOP" or final:
            scheduler.on_trial_complete(None, trial(number), result)
            return f"STOP at {budget}" if decision == "STOP" else "complete"
    return "runs"


@pytest.mark.parametrize(
    ("name", "settings", "curve", "expected"),
    [
        ("median", SOON, [9, 9, 9, 9], "STOP at 2"),
        ("median", SOON, [0.5, 0.5, 0.5, 0.5], "complete"),
        ("median", {**SOON, "n_startup_trials": 4}, [9, 9, 9, 9], "complete"),
        ("median", {**SOON, "n_warmup_steps": 3}, [9, 9, 9, 9], "STOP at 3"),
        ("percentile", {**SOON, "percentile": 10.0}, [1.5, 1.5, 1.5, 1.5], "STOP at 2"),
        ("percentile", {**SOON, "percentile": 90.0}, [1.5, 1.5, 1.5, 1.5], "complete"),
        ("successive_halving", {"grace": 2, "eta": 2}, [9, 9, 9, 9], "STOP at 2"),
        ("successive_halving", {"grace": 2, "eta": 2}, [0, 0, 0, 0], "complete"),
        ("hyperband", {"grace": 1, "eta": 4}, [9, 9, 9, 9], "STOP at 1"),
        ("patient", {**SOON, "patience": 1}, [9, 8, 7, 9], "complete"),
        ("patient", {**SOON, "patience": 0}, [7, 8, 9, 9], "STOP at 2"),
        ("threshold", {"upper": 5.0, "n_warmup_steps": 3}, [9, 9, 9, 9], "STOP at 3"),
        ("threshold", {"lower": 1.0, "n_warmup_steps": 0}, [2, 0.5, 2, 2], "STOP at 2"),
        ("wilcoxon", {"p_threshold": 0.3}, [9, 9, 9, 9], "STOP at 2"),
        ("wilcoxon", {"p_threshold": 0.3}, [0, 0, 0, 0], "complete"),
        ("wilcoxon", {"p_threshold": 0.3, "n_startup_steps": 3}, [9, 9, 9, 9], "STOP at 3"),
    ],
)
def test_each_stops_what_it_is_made_for(name: str, settings: dict[str, Any], curve: list[float], expected: str) -> None:
    scheduler = schedulers.build(name, max_budget=4, **settings)
    for number, level in enumerate((1.0, 2.0, 3.0)):
        play(scheduler, number, [level] * 4)
    assert play(scheduler, 3, curve) == expected


EASY_FIRST = (0.0, 0.0, 10.0, 10.0, 10.0)
"""How hard each of five folds is, whatever is trained."""


def folds(level: float) -> list[float]:
    return [level + hard for hard in EASY_FIRST]


def play_folds(scheduler: Any, number: int, scores: list[float], *, epochs: int = 20) -> str:
    """Plays a cross-validated trial: stage-1 epochs without a fold, then a report a fold; where it stopped."""
    scheduler.on_trial_add(None, trial(number))
    for budget in (10, 20):
        early = {"budget": budget, "final": False, "metrics": {"val_loss": 100.0 - number}}
        assert scheduler.on_trial_result(None, trial(number), early) == "CONTINUE"
    for fold, score in enumerate(scores, start=1):
        final = fold == len(scores)
        metrics = {"fold_score": score, "score": score}
        result = {"budget": 20 + fold * epochs, "score": score, "final": final, "metrics": metrics}
        decision = scheduler.on_trial_result(None, trial(number), result)
        if decision == "STOP" or final:
            scheduler.on_trial_complete(None, trial(number), result)
            return f"STOP at fold {fold}" if decision == "STOP" else "complete"
    raise AssertionError("no report was final")


@pytest.mark.parametrize("name", ["wilcoxon", "median", "percentile"])
def test_easy_first_folds_are_no_excuse(name: str) -> None:
    settings = SchedulerSpec(name=name, **({} if name == "wilcoxon" else {"n_startup_trials": 1}))
    built = schedulers.build(name, by_fold="fold_score", max_budget=120, **settings.settings(by_fold=True))
    for number, level in enumerate((1.2, 1.1, 1.0)):  # each better than the one before
        assert play_folds(built, number, folds(level)) == "complete"
    ended = play_folds(built, 3, folds(2.0))
    assert ended in ("STOP at fold 1", "STOP at fold 2")


def test_a_better_trial_goes_on_where_the_first_folds_are_hard() -> None:
    hard_first = [[level + hard for hard in reversed(EASY_FIRST)] for level in (1.0, 0.5)]
    built = schedulers.build("wilcoxon", by_fold="fold_score", p_threshold=0.3)
    assert [play_folds(built, number, scores) for number, scores in enumerate(hard_first)] == ["complete"] * 2


def test_folds_are_compared_by_number_whatever_an_epoch_budget_says() -> None:
    built = schedulers.build("wilcoxon", by_fold="fold_score", p_threshold=0.3)
    assert play_folds(built, 0, folds(1.0), epochs=50) == "complete"
    assert play_folds(built, 1, folds(2.0), epochs=10) == "STOP at fold 2"


def test_a_continued_study_compares_folds_as_one_that_never_stopped() -> None:
    def record(number: int, level: float) -> TrialRecord:
        history = {20 + 20 * fold: {"fold_score": value} for fold, value in enumerate(folds(level), start=1)}
        return TrialRecord(number, "complete", level, {}, {}, history=history)

    built = schedulers.build("wilcoxon", by_fold="fold_score", p_threshold=0.3)
    built.replay([record(0, 3.0), record(1, 1.0)])
    assert play_folds(built, 2, folds(2.0)) == "STOP at fold 2"
    assert play_folds(built, 3, folds(0.5)) == "complete"


def test_the_median_pruner_is_optunas_own_to_the_letter() -> None:
    pruner, theirs = optuna.pruners.MedianPruner(5, 5), optuna.create_study()
    ours = schedulers.build("median")
    decisions = []
    for number in range(30):
        curve = [(number * 7 % 13) / budget for budget in range(1, 11)]
        mirrored, expected = theirs.ask(), "complete"
        for budget, score in enumerate(curve, start=1):
            mirrored.report(score, budget)
            if budget < 10 and pruner.prune(theirs, theirs.trials[-1]):
                expected = f"STOP at {budget}"
                break
        theirs.tell(
            mirrored, **({"values": 0.0} if expected == "complete" else {"state": optuna.trial.TrialState.PRUNED})
        )
        decisions.append(play(ours, number, curve))
        assert decisions[-1] == expected
    assert {"complete", "STOP at 5"} <= set(decisions)


def test_hyperbands_brackets_outlive_a_driver() -> None:
    def stops(first: int) -> list[str]:
        scheduler = schedulers.build("hyperband", max_budget=27, grace=1, eta=3)
        scheduler.replay(
            TrialRecord(number, "complete", 0.0, {}, {}, curve=dict.fromkeys(range(1, 28), 0.0))
            for number in range(first)
        )
        for number in range(first, 6):
            play(scheduler, number, [0.0] * 27)
        return [play(scheduler, number, [9.0] * 27) for number in range(6, 40)]

    assert stops(0) == stops(6)
    assert len(set(stops(0))) >= 3  # brackets with rungs at different budgets, and one without


def test_what_is_watched_is_compared_in_place_of_the_score() -> None:
    scheduler = schedulers.build("median", in_every_report="val_loss", **SOON)
    for number in range(2):
        play(scheduler, number, [0.1] * 4)
    scheduler.on_trial_add(None, trial(2))
    # As Tune flattens what trainables report; a good score does not save the trial.
    assert scheduler.on_trial_result(None, trial(2), {"budget": 2, "score": 0.0, "metrics/val_loss": 9.0}) == "STOP"
    assert scheduler.on_trial_result(None, trial(3), {"budget": 2, "metrics/val_loss": 0.05}) == "CONTINUE"


def test_the_score_is_read_where_the_user_says_so() -> None:
    scheduler = schedulers.build("median", in_every_report="val_loss", watch="score", **SOON)
    for number in range(2):
        play(scheduler, number, [0.1] * 4)
    assert scheduler.on_trial_result(None, trial(2), {"budget": 2, "score": 9.0, "metrics/val_loss": 0.0}) == "STOP"


def test_what_is_watched_is_replayed_from_the_history() -> None:
    scheduler = schedulers.build("median", n_startup_trials=2, n_warmup_steps=1, watch="val_loss")
    history = {budget: {"val_loss": 0.1} for budget in (1, 2, 3)}
    scheduler.replay(TrialRecord(number, "complete", 0.5, {}, {}, history=history) for number in range(3))
    assert scheduler.on_trial_result(None, trial(3), {"budget": 2, "metrics": {"val_loss": 9.0}}) == "STOP"


def test_a_report_that_breaks_a_constraint_is_not_shown_to_a_pruner() -> None:
    scheduler = schedulers.build("threshold", upper=1.0, n_warmup_steps=0)
    assert scheduler.on_trial_result(None, trial(0), {"budget": 1, "score": 9.0, "feasible": False}) == "CONTINUE"
    assert scheduler.on_trial_result(None, trial(0), {"budget": 2, "score": 9.0}) == "STOP"


@pytest.mark.parametrize(
    ("scheduler", "earliest"),
    [({"name": "MedianPruner", "n_startup_trials": 1, "n_warmup_steps": 3}, 3), ({"name": "asha", "grace": "auto"}, 2)],
    ids=["median", "measured grace"],
)
def test_in_a_real_study_it_stops_trials_from_its_first_budget_on(
    scheduler: dict[str, Any], earliest: int, tmp_path: Path, ray_session: Any
) -> None:
    space = {
        "name": "rates",
        "parameters": {"learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1}},
        "fixed": {"max_train_epochs": 8},
    }
    record = study.run(
        specs.from_mapping(
            {
                "name": "pruned",
                "trainer": "curve",
                "space": space,
                "search": {"sampler": "random", "seed": 3},
                "scheduler": scheduler,
                "budget": {"n_trials": 8, "plateau": None},
                "resources": {"cpu": 1, "concurrent": 2},
                "tracking": {"wandb": "off"},
                "results": str(tmp_path),
            },
            "test",
        )
    )
    pruned = [trial for trial in record.trials if trial.state == "pruned"]
    assert len(pruned) + record.count("complete") == 8
    assert pruned and record.best is not None
    assert min(trial.last_budget for trial in pruned) == earliest
