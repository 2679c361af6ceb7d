"""Several drivers on one study, on a real PostgreSQL: who begins what, and who takes over whose trials."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sql
from optuna.trial import TrialState

from search_spaces.space import Space
from tests.postgres import Postgres, postgres, skip_where_missing
from tests.tune_lora.studies import RATES
from trainables import checkpoints
from tune_lora import drivers, leases, store
from tune_lora.drivers import Driver
from tune_lora.live_study import LiveStudy
from tune_lora.searcher import StudySearcher

pytestmark = pytest.mark.alone

WITH_PRIORS = {**RATES, "priors": {"known": {"params": {"learning_rate": 1e-3, "max_train_epochs": 4}}}}


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    skip_where_missing()
    with postgres() as running:
        yield running


class Fleet:
    """Drivers of one study, each with a connection, a lease and a searcher of its own."""

    def __init__(self, url: str, name: str, folder: Path, stack: ExitStack, **settings: Any) -> None:
        self._url, self._name, self._folder, self._stack = url, name, folder, stack
        self._settings = {"n_trials_total": 6, "sampler": "random", **settings}

    def study(self) -> optuna.Study:
        return store.open_study(self._url, self._name, "minimize")

    def join(self) -> tuple[StudySearcher, Driver]:
        study = self.study()
        driver = self._stack.enter_context(drivers.joined(study))
        assert driver is not None
        searcher = StudySearcher(
            study,
            Space.load(WITH_PRIORS),
            direction="minimize",
            trial_folder=lambda number: self._folder / "trials" / str(number),
            **self._settings,
        )
        return searcher, driver


@pytest.fixture
def fleet(server: Postgres, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(server.url, request.node.name, tmp_path, stack, **getattr(request, "param", {}))


def drive(searcher: StudySearcher, prefix: str, found: list[str]) -> None:
    """Trials that end as soon as they begin, until the searcher says that there are no more."""
    for index in range(1000):
        suggested = searcher.suggest(f"{prefix}{index}")
        if suggested == StudySearcher.FINISHED:
            return
        if isinstance(suggested, dict):
            found.append(f"{prefix}{index}")
            searcher.on_trial_complete(f"{prefix}{index}", {"budget": 1, "score": 0.5, "final": True, "metrics": {}})
        else:
            threading.Event().wait(0.05)
    raise AssertionError("the study did not end")


@pytest.mark.parametrize("fleet", [{"n_trials_total": 30}], indirect=True)
def test_drivers_that_ask_at_the_same_time_begin_no_trial_too_many(fleet: Fleet) -> None:
    joined = [fleet.join()[0] for _ in range(4)]
    found: list[str] = []
    threads = [
        threading.Thread(target=drive, args=(searcher, f"{index}-", found)) for index, searcher in enumerate(joined)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    trials = fleet.study().trials
    assert [trial.number for trial in trials] == list(range(30))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len(found) == 30 == len({trial.user_attrs[store.TUNE_ID] for trial in trials})
    assert Counter(trial.user_attrs[store.PROVENANCE] for trial in trials)["prior:known"] == 1
    configs = [tuple(sorted(trial.params.items())) for trial in trials]
    assert len(set(configs)) == 30  # none draws what another has drawn


@pytest.mark.parametrize("fleet", [{"sampler": "grid", "n_trials_total": 50}], indirect=True)
def test_each_point_of_a_grid_is_tried_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WITH_PRIORS, "parameters", GRID)
    monkeypatch.setitem(WITH_PRIORS, "priors", {})
    joined = [fleet.join()[0] for _ in range(2)]
    threads = [threading.Thread(target=drive, args=(one, f"{index}-", [])) for index, one in enumerate(joined)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    points = [tuple(sorted(trial.params.items())) for trial in fleet.study().trials]
    assert len(points) == len(set(points)) == 6


GRID = {
    "learning_rate": {"type": "categorical", "choices": [1e-3, 1e-2, 1e-1]},
    "max_train_epochs": {"type": "categorical", "choices": [4, 6]},
}


@pytest.mark.parametrize("fleet", [{"n_trials_total": 1}], indirect=True)
def test_a_trial_of_another_driver_is_waited_for_since_it_may_be_lost(fleet: Fleet) -> None:
    (first, _), (second, _) = fleet.join(), fleet.join()
    assert isinstance(first.suggest("a"), dict)
    assert second.suggest("b") is None
    first.on_trial_complete("a", error=True)  # the infrastructure's: it does not count, and is run again
    second.live.refresh()
    again = second.suggest("c")
    assert isinstance(again, dict)
    assert second.live.trials[1].user_attrs[store.PROVENANCE] == "retry:0"


def test_a_retry_is_made_by_one_driver(fleet: Fleet) -> None:
    (first, driver), (second, _) = fleet.join(), fleet.join()
    assert isinstance(first.suggest("a"), dict)
    first.on_trial_complete("a", error=True)
    second.live.refresh()
    assert isinstance(second.suggest("b"), dict)
    driver._next_look = math.inf
    assert first.suggest("c") is None  # it has not seen that yet, and is refused
    assert isinstance(first.suggest("c"), dict)
    origins = [trial.user_attrs[store.PROVENANCE] for trial in fleet.study().trials]
    assert origins.count("retry:0") == 1


def begin(searcher: StudySearcher, tune_id: str, checkpoint: bool) -> dict[str, Any]:
    begun = searcher.suggest(tune_id) or searcher.suggest(tune_id)  # the first may find what it wants begun
    assert isinstance(begun, dict)
    folder = Path(begun["trial"]["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoint:
        checkpoints.write(folder, 2, lambda into: (into / "state").write_text("2") and None)
    return begun


def test_only_a_dead_drivers_trials_are_taken_and_by_one(fleet: Fleet) -> None:
    (dead, gone), (alive, _) = fleet.join(), fleet.join()
    left = begin(dead, "left", checkpoint=True)
    lost = begin(dead, "lost", checkpoint=False)
    kept = begin(alive, "kept", checkpoint=True)
    (heir, _), (other, _) = fleet.join(), fleet.join()
    assert heir._to_continue == other._to_continue == []  # everybody is at work
    _declare_gone([heir, other], gone.name)
    taken: list[Sequence[int]] = []
    threads = [threading.Thread(target=lambda one=one: taken.append(one._settle())) for one in (heir, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [number for numbers in taken for number in numbers] == [left["trial"]["number"]]
    trials = fleet.study().trials
    assert trials[kept["trial"]["number"]].user_attrs[store.DRIVER] not in (gone.name, trials[0].user_attrs["driver"])
    assert trials[lost["trial"]["number"]].user_attrs[store.CAUSE] == "infrastructure"
    for searcher in (heir, other):  # at each later look as well
        searcher.live.refresh()
        assert searcher._settle() == []


def _declare_gone(searchers: Sequence[StudySearcher], name: str) -> None:
    for searcher in searchers:
        driver = searcher._driver
        assert driver is not None
        driver._over.set()  # its own look must not contradict
        driver._renewing.join()
        driver.look()
        driver._gone = frozenset({name})


def test_a_driver_that_was_taken_for_dead_writes_nothing_on_its_former_trials(
    fleet: Fleet,
) -> None:
    (frozen, gone), (heir, _) = fleet.join(), fleet.join()
    begin(frozen, "a", checkpoint=True)
    heir.live.refresh()
    _declare_gone([heir], gone.name)
    heir._to_continue += heir._settle()
    assert isinstance(heir.suggest("b"), dict)
    frozen.on_trial_result("a", {"budget": 3, "score": 9.0, "metrics": {"val_loss": 9.0}})
    frozen.on_trial_complete("a", {"budget": 4, "score": 9.0, "final": True, "metrics": {}})
    (trial,) = fleet.study().trials
    assert trial.state == TrialState.RUNNING
    assert not any(name.startswith(store.HISTORY_PREFIX) for name in trial.user_attrs)
    heir.on_trial_complete("b", {"budget": 4, "score": 0.5, "final": True, "metrics": {}})
    frozen.on_trial_complete("a", {"budget": 4, "score": 9.0, "final": True, "metrics": {}})
    (trial,) = fleet.study().trials
    assert trial.value == 0.5


def test_a_driver_that_leaves_leaves_its_trials_at_once(fleet: Fleet) -> None:
    with ExitStack() as leaving:
        first = Fleet(fleet._url, fleet._name, fleet._folder, leaving)
        begin(first.join()[0], "a", checkpoint=True)
    heir, _ = fleet.join()
    assert heir._to_continue == [0]


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (leases, drivers):
        monkeypatch.setattr(module, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 2.0)


@pytest.mark.usefixtures("short_leases")
def test_drivers_that_are_busy_notice_a_dead_one_and_take_what_they_have_room_for(fleet: Fleet) -> None:
    (dead, gone), (busy, _), (idle, _) = fleet.join(), fleet.join(), fleet.join()
    for index in range(3):
        begin(dead, f"left{index}", checkpoint=True)
    for one in (busy, idle):
        one.live.refresh()
    gone._over.set()  # its process lives, so that nothing but its silence tells
    wait_for(lambda: all(gone.name in one._driver._gone for one in (busy, idle) if one._driver))
    first = busy.suggest("room")
    rest = [idle.suggest(f"room{index}") for index in range(2)]
    taken = [one["trial"]["number"] for one in (first, *rest) if isinstance(one, dict)]
    assert taken == [0, 1, 2]
    owners = [trial.user_attrs[store.DRIVER] for trial in fleet.study().trials]
    assert busy._driver and idle._driver
    assert owners == [busy._driver.name, idle._driver.name, idle._driver.name]


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "never"
        time.sleep(0.1)


def test_what_a_silent_driver_says_of_itself(fleet: Fleet) -> None:
    """A driver that was killed elsewhere is not counted as at work, nor is the study's seed taken for its."""
    (_, silent), (_, here) = fleet.join(), fleet.join()
    here.look()
    assert here.others == [silent.name] and here.seed(7) != 7
    silent._over.set()
    silent._renewing.join()
    with silent._storage.engine.begin() as connection:
        table = drivers._OF_STUDY
        where = (table.study_id == silent._study_id, table.key == f"{store.DRIVER_PREFIX}{silent.name}")
        (text,) = connection.execute(sql.select(table.value_json).where(*where)).one()
        lease = json.loads(text)
        lease["at"] -= leases.LEASE_SECONDS + 1
        connection.execute(sql.update(table).where(*where).values(value_json=json.dumps(lease)))
    here.look()
    assert here.others == [] and here.seed(7) == 7
    assert here._gone == frozenset()  # its trials are taken once its lease was seen to stand still


def test_an_attribute_of_the_study_is_agreed_on(fleet: Fleet) -> None:
    said: list[str] = []
    studies = [fleet.study() for _ in range(4)]
    asked = [
        threading.Thread(target=lambda i=i, one=one: said.append(drivers.agreed(one, "token", str(i))))
        for i, one in enumerate(studies)
    ]
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join(60)
    assert len(said) == 4 and set(said) == {fleet.study().user_attrs["token"]}


def test_a_trial_that_was_taken_over_is_taken_over_again(fleet: Fleet) -> None:
    (first, gone), (witness, _) = fleet.join(), fleet.join()
    begin(first, "a", checkpoint=True)
    witness.live.refresh()  # knows it as the first one's
    with ExitStack() as leaving:
        heir, _ = Fleet(fleet._url, fleet._name, fleet._folder, leaving).join()
        heir.live.refresh()
        _declare_gone([heir], gone.name)
        assert heir._settle() == [0]
    _declare_gone([witness], gone.name)
    witness.live.refresh()
    assert witness._settle() == [0]


@pytest.mark.parametrize("fleet", [{"n_trials_total": 2}], indirect=True)
def test_a_trial_that_somebody_enqueued_takes_no_place(fleet: Fleet) -> None:
    searcher, _ = fleet.join()
    fleet.study().enqueue_trial({"learning_rate": 1e-3})
    searcher.live.refresh()
    found: list[str] = []
    drive(searcher, "a", found)
    assert len(found) == 2


def test_a_lease_that_was_renewed_meanwhile_is_not_taken_from(fleet: Fleet) -> None:
    (busy, driver), (heir, _) = fleet.join(), fleet.join()
    begin(busy, "a", checkpoint=True)
    heir.live.refresh()
    _declare_gone([heir], driver.name)
    driver._renew()  # it is not gone after all
    assert heir._settle() == []
    assert LiveStudy(fleet.study()).trials[0].user_attrs[store.DRIVER] == driver.name


def test_a_study_in_a_file_has_no_leases(tmp_path: Path) -> None:
    study = store.open_study(store.sqlite_url(tmp_path), "alone", "minimize")
    with drivers.joined(study) as driver:
        assert driver is None
    assert study.user_attrs == {}
