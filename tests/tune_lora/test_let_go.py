"""Trials that are no longer a driver's own: taken over by another driver, or ended from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search_spaces.space import Space
from tests.postgres import Postgres, postgres, skip_where_missing
from tests.tune_lora.studies import RATES
from tests.tune_lora.test_drivers import Fleet, _declare_gone, begin
from tune_lora import store
from tune_lora.searcher import StudySearcher
from tune_lora.tuning import _Terminated

pytestmark = pytest.mark.alone

SUPERSEDED = {"superseded": True, "done": True}


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    skip_where_missing()
    with postgres() as running:
        yield running


@pytest.fixture
def searcher(tmp_path: Path) -> StudySearcher:
    return StudySearcher(
        store.open_study(store.sqlite_url(tmp_path), "study", "minimize"),
        Space.load(RATES),
        direction="minimize",
        n_trials_total=2,
        sampler="random",
        trial_folder=lambda number: tmp_path / "trials" / str(number),
    )


def report(budget: int, **more: Any) -> dict[str, Any]:
    return {"budget": budget, "score": 0.9, "metrics": {"val_loss": 0.9}, **more}


def from_outside(tmp_path: Path) -> optuna.Study:
    return optuna.load_study(study_name="study", storage=store.sqlite_url(tmp_path))


def test_of_a_trial_that_goes_on_elsewhere_nothing_is_told(searcher: StudySearcher, tmp_path: Path) -> None:
    searcher.suggest("a")
    searcher.on_trial_result("a", report(1))
    searcher.on_trial_complete("a", SUPERSEDED)
    (trial,) = from_outside(tmp_path).trials
    assert trial.state == TrialState.RUNNING and trial.intermediate_values == {1: 0.9}
    (line,) = store.load(tmp_path).incidents
    assert line.text == "trial 0: another process goes on with it, and this one lets it go"


@pytest.mark.parametrize("final", [False, True])
def test_a_trial_that_was_ended_from_outside_is_let_go_and_the_study_goes_on(
    searcher: StudySearcher, tmp_path: Path, final: bool
) -> None:
    stops = _Terminated(searcher)
    searcher.suggest("a")
    searcher.on_trial_result("a", report(1))
    assert not stops("a", report(1))
    from_outside(tmp_path).tell(0, 0.25)
    if not final:
        searcher.on_trial_result("a", report(2))
        assert stops("a", report(3)), "it is trained for nobody"
    searcher.on_trial_complete("a", report(3, final=True))
    assert isinstance(searcher.suggest("b"), dict)
    searcher.on_trial_complete("b", report(3, final=True))
    assert searcher.suggest("c") == StudySearcher.FINISHED
    first, second = store.load(tmp_path).trials
    assert (first.state, first.value, second.value) == ("complete", 0.25, 0.9)
    (line,) = store.load(tmp_path).incidents
    assert line.text == "trial 0: it was ended (COMPLETE) by somebody else, and is let go"


def test_what_was_ended_while_nobody_drove_the_study_is_not_gone_on_with(
    searcher: StudySearcher, tmp_path: Path
) -> None:
    searcher.suggest("a")
    searcher._logs.clear()
    searcher._to_continue = [0]
    from_outside(tmp_path).tell(0, 0.25)
    assert searcher.suggest("b") is None
    assert not searcher._logs and isinstance(searcher.suggest("b"), dict)


def test_a_trial_that_another_took_before_it_was_gone_on_with_is_the_others(server: Postgres, tmp_path: Path) -> None:
    with ExitStack() as stack:
        fleet = Fleet(server.url, "waits", tmp_path, stack, n_trials_total=1)
        (first, gone), (heir, _) = fleet.join(), fleet.join()
        begin(first, "a", checkpoint=True)
        first._logs.clear()
        first._to_continue = [0]
        heir.live.refresh()
        _declare_gone([heir], gone.name)
        heir._to_continue += heir._settle()
        assert first.suggest("b") is None and not first._logs
        first._to_continue = [0]  # and now that it knows whose it is
        assert first.suggest("c") is None and not first._logs
        assert isinstance(heir.suggest("d"), dict)


def test_a_driver_that_thaws_stops_the_trials_that_another_has_taken(server: Postgres, tmp_path: Path) -> None:
    with ExitStack() as stack:
        fleet = Fleet(server.url, "thaws", tmp_path, stack)
        (frozen, gone), (heir, _) = fleet.join(), fleet.join()
        begin(frozen, "a", checkpoint=True)
        stops = _Terminated(frozen)
        assert not stops("a", report(2))
        heir.live.refresh()
        _declare_gone([heir], gone.name)
        heir._to_continue += heir._settle()
        assert isinstance(heir.suggest("b"), dict)
        frozen.on_trial_result("a", report(3))
        assert stops("a", report(4))
        frozen.on_trial_complete("a", report(4))
        assert not frozen._logs and not _Terminated(heir)("b", report(3))
        heir.on_trial_complete("b", report(4, final=True))
        (trial,) = fleet.study().trials
        assert trial.state == TrialState.COMPLETE
        said = [one.text for one in store.read(fleet.study()).incidents if "lets it go" in one.text]
        assert said == ["trial 0: another driver goes on with it, and this one lets it go"]
