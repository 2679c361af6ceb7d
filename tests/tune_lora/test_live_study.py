"""The driver's view of a study is what Optuna reads back, whoever wrote it and however."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from tests.postgres import Postgres, postgres, skip_where_missing
from tune_lora import store
from tune_lora.live_study import LiveStudy
from tune_lora.storage_url import with_driver

pytestmark = pytest.mark.alone

DISTRIBUTIONS = {
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "rank": IntDistribution(2, 16),
    "kind": CategoricalDistribution(("a", "b", None)),
}
PARAMS = {"rate": 3e-4, "rank": 7, "kind": None}


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    skip_where_missing()
    with postgres() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return store.sqlite_url(tmp_path)
    server: Postgres = request.getfixturevalue("server")
    return server.url


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A study of the test's own, where several share a server."""
    return str(request.node.name)


def fresh(url: str, name: str = "study") -> optuna.Study:
    """The study as another process would see it, read by Optuna alone."""
    return optuna.load_study(study_name=name, storage=with_driver(url))


def told(trial: FrozenTrial) -> dict[str, Any]:
    """All that a reader sees, with NaN made comparable."""
    return {
        "number": trial.number,
        "state": trial.state,
        "values": trial.values,
        "params": trial.params,
        "distributions": trial.distributions,
        "attributes": trial.user_attrs,
        "curve": {step: repr(score + 0.0) for step, score in trial.intermediate_values.items()},  # SQL has no -0.0
    }


def test_a_trial_is_stored_as_optuna_itself_stores_it(url: str, name: str) -> None:
    live = LiveStudy(store.open_study(url, name, "minimize"))
    trial = live.create(PARAMS, DISTRIBUTIONS, {"config": {"layers": (1, 2)}, "seed": 3})
    live.write(trial, {"report:1": {"loss": 0.5}}, {1: 0.5, 2: math.nan, 3: math.inf})
    live.write(trial, {"report:1": {"loss": 0.25}}, {2: -math.inf})
    live.end(trial, TrialState.COMPLETE, [0.25], {"seconds": 1.5})

    theirs = fresh(url, name).ask(DISTRIBUTIONS)
    found = fresh(url, name).trials[0]
    assert (found.state, found.value, found.params) == (TrialState.COMPLETE, 0.25, PARAMS)
    assert found.user_attrs["config"] == {"layers": [1, 2]}
    assert found.user_attrs["report:1"] == {"loss": 0.25}
    assert {step: repr(score) for step, score in found.intermediate_values.items()} == {1: "0.5", 2: "-inf", 3: "inf"}
    assert found.datetime_start is not None
    assert found.datetime_complete is not None
    assert (
        abs((fresh(url, name).trials[1].datetime_start - found.datetime_start).total_seconds()) < 60
    )  # of one time zone
    assert theirs.number == 1
    assert told(live.trials[0]) == told(found)


def test_a_pruned_trial_is_worth_its_last_score_as_with_optuna(url: str, name: str) -> None:
    live = LiveStudy(store.open_study(url, name, "minimize"))
    for scores in ({1: 0.5, 2: 0.4}, {}, {1: 0.3, 2: math.nan}):
        trial = live.create(PARAMS, DISTRIBUTIONS, {})
        live.write(trial, {}, scores)
        live.end(trial, TrialState.PRUNED)
        theirs = fresh(url, name).ask(DISTRIBUTIONS)
        for step, score in scores.items():
            theirs.report(score, step)
        fresh(url, name).tell(theirs.number, state=TrialState.PRUNED)
        live.refresh()
    found = [trial.value for trial in fresh(url, name).trials]
    assert found[0::2] == found[1::2] == [0.4, None, None]


def test_what_ended_is_not_written_on(url: str, name: str) -> None:
    live = LiveStudy(store.open_study(url, name, "minimize"))
    trial = live.create(PARAMS, DISTRIBUTIONS, {})
    live.end(trial, TrialState.FAIL, attributes={"cause": "nan_loss"})
    with pytest.raises(UpdateFinishedTrialError):
        live.write(trial, {"late": 1})
    with pytest.raises(UpdateFinishedTrialError):
        live.end(trial, TrialState.COMPLETE, [1.0])
    assert told(fresh(url, name).trials[0])["attributes"] == {"cause": "nan_loss"}


def test_an_end_is_whole_or_not_there(tmp_path: Path) -> None:
    live = LiveStudy(store.open_study(store.sqlite_url(tmp_path), "study", "minimize"))
    trial = live.create(PARAMS, DISTRIBUTIONS, {})
    with pytest.raises(TypeError, match="JSON"):
        live.end(trial, TrialState.FAIL, attributes={"cause": "nan_loss", "broken": object()})
    with pytest.raises(ValueError, match="must be 1 number"):
        live.end(trial, TrialState.COMPLETE, [math.nan], {"cause": "x"})
    found = fresh(store.sqlite_url(tmp_path)).trials[0]
    assert (found.state, found.user_attrs) == (TrialState.RUNNING, {})
    assert live.trials[0].state == TrialState.RUNNING


def test_what_others_write_is_seen_after_a_refresh(url: str, name: str) -> None:
    live = LiveStudy(store.open_study(url, name, "maximize"))
    other = LiveStudy(store.open_study(url, name, "maximize"))
    mine = live.create(PARAMS, DISTRIBUTIONS, {"by": "me"})
    theirs = other.create(PARAMS, DISTRIBUTIONS, {"by": "them"})
    assert (mine.number, theirs.number) == (0, 1)
    other.write(theirs, {"report:1": {}}, {1: 0.5})
    other.end(theirs, TrialState.COMPLETE, [0.75])
    third = live.create(PARAMS, DISTRIBUTIONS, {"by": "me again"})
    assert third.number == 2
    assert [trial.user_attrs["by"] for trial in live.trials] == ["me", "them", "me again"]
    assert live.trials[1].value == 0.75
    assert live.trials[0] is mine


def test_an_attribute_that_another_driver_changes_is_seen(url: str, name: str) -> None:
    """A takeover changes values and adds none."""
    live = LiveStudy(store.open_study(url, name, "minimize"))
    trial = live.create(PARAMS, DISTRIBUTIONS, {"driver": "a", "metrics": {"loss": math.nan}})
    live.write(trial, {}, {1: 0.5, 2: math.nan})
    _, mark = live.since(0)
    live.refresh()
    assert live.since(mark)[0] == []  # nothing has changed, NaN included
    other = LiveStudy(store.open_study(url, name, "minimize"))
    other.write(other.trials[0], {"driver": "b"}, {1: 0.25})
    live.refresh()
    assert live.trials[0].user_attrs["driver"] == "b"
    assert live.trials[0].intermediate_values[1] == 0.25
    assert [one.number for one in live.since(mark)[0]] == [0]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_written_is_known_as_it_is_stored(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    url = store.sqlite_url(tmp_path_factory.mktemp("live"))
    live, mark = LiveStudy(store.open_study(url, "study", "minimize")), 0
    followed: dict[int, TrialState] = {}
    for _ in range(data.draw(st.integers(1, 12))):
        running = [trial for trial in live.trials if trial.state == TrialState.RUNNING]
        step = data.draw(st.sampled_from(["create", "write", "end"])) if running else "create"
        if step == "create":
            live.create(PARAMS, DISTRIBUTIONS, {"n": len(live.trials)})
        elif step == "write":
            trial = data.draw(st.sampled_from(running))
            score = data.draw(st.floats(allow_nan=True, width=32))
            live.write(trial, {"seconds": data.draw(st.floats(0, 10))}, {data.draw(st.integers(1, 5)): score})
        else:
            state = data.draw(st.sampled_from([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]))
            values = [data.draw(st.floats(-5, 5))] if state == TrialState.COMPLETE else None
            live.end(data.draw(st.sampled_from(running)), state, values)
        changed, mark = live.since(mark)
        followed.update((trial.number, trial.state) for trial in changed)
    stored = fresh(url).trials
    assert [told(trial) for trial in live.trials] == [told(trial) for trial in stored]
    assert followed == {trial.number: trial.state for trial in stored}
    assert [live.of(n).state for n in range(len(stored))] == [store.record(trial).state for trial in stored]
