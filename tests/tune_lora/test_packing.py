"""How many trials of a study share a base: as it says, or as many as is measured to pay where trials run."""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import connect
from cluster.spec import Capacity, Node, TrialResources
from tests.trainables.lora.text import small_model
from tests.tune_lora.studies import RATES
from trainables import pack_measure
from trainables.curve import Curve
from trainables.pack_size import Room
from tune_lora import build, packing, spec, store
from tune_lora.build import Plan
from tune_lora.errors import StudyError

HERE = Capacity(2, 0)
GIB = 1024**3


class Notes:
    """What is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, record: Any, *, total: int, force: bool = False) -> None:
        """Nothing is looked at."""

    def note(self, line: str) -> None:
        assert "\n" not in line
        self.lines.append(line)


class Cluster:
    """A worker in this process, which counts how often it is asked, and on what. By its clock each step takes as long
    as any other, however many trials are in it: packing pays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, TrialResources]] = []
        self.fails = ""
        monkeypatch.setattr(connect, "run_alone", self._run)
        monkeypatch.setattr(packing, "measured", partial(packing.measured, clock=count().__next__))
        monkeypatch.setattr(pack_measure.high_water, "give_back", lambda: None)  # takes a while where torch is loaded

    def _run(self, function: Any, *arguments: Any, trial: TrialResources, kind: str = "") -> Any:
        self.asked.append((kind, trial))
        if self.fails:
            raise connect.WorkerFailed(self.fails)
        return function(*arguments)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def curves(folder: Path, asked: Any, n_trials: int = 100, **changes: Any) -> tuple[Plan, optuna.Study]:
    given = {"name": "curves", "trainer": "curve", "space": RATES, "results": str(folder)}
    resources = {"packing": asked} | changes.pop("resources", {})
    more = {"resources": resources, "budget": {"n_trials": n_trials}}
    ready = build.plan(spec.from_mapping(given | more | changes, "test"))
    ready.spec.folder.mkdir(parents=True, exist_ok=True)
    return ready, store.open_study(ready.spec.storage_url, "curves", "minimize")


@pytest.mark.parametrize(("asked", "means"), [("off", 1), (1, 1), (2, 2), (12, 12)])
def test_what_is_said_is_done_and_nothing_measured(tmp_path: Path, workers: Cluster, asked: Any, means: int) -> None:
    ready, study = curves(tmp_path, asked)
    assert packing.chosen(ready, study, HERE, said := Notes()) == means
    assert not workers.asked and not said.lines
    assert study.user_attrs.get(store.PACKED) == (means if means > 1 else None)


def test_what_was_measured_is_said_and_kept_for_the_next_run(tmp_path: Path, workers: Cluster) -> None:
    ready, study = curves(tmp_path, "auto")
    found = packing.chosen(ready, study, HERE, first := Notes())
    assert found == 16, "an epoch of a curve takes as long for one as for many"
    assert first.lines[0] == "measuring how many trials pay on one base"
    assert first.lines[1].startswith("packing: 16 trials share a base: ")
    again = store.open_study(ready.spec.storage_url, "curves", "minimize")
    assert packing.chosen(ready, again, HERE, second := Notes()) == found
    assert second.lines == first.lines[1:] and len(workers.asked) == 1
    assert again.user_attrs[store.PACKED] == found


def test_a_pack_of_other_resources_is_measured_anew(tmp_path: Path, workers: Cluster) -> None:
    for resources in ({}, {"cpu": 2}, {"memory": 4}, {"margin": 0.5}, {}):
        packing.chosen(*curves(tmp_path, "auto", resources=resources), HERE, Notes())
    assert [trial for _, trial in workers.asked] == [
        TrialResources(1, 0), TrialResources(2, 0), TrialResources(1, 0, 4 * GIB), TrialResources(1, 0),
    ]  # fmt: skip


def test_the_kind_of_machine_on_which_the_fewest_pay_decides(
    tmp_path: Path, workers: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Capacity.of((Node("a", 4, 1, kind="T4"), Node("b", 4, 1, kind="A100")))
    measure = packing.measured

    def of_kind(*given: Any, **asked: Any) -> Any:
        return measure(*given, **asked, most={"T4": 4, "A100": 8}[workers.asked[-1][0]])

    monkeypatch.setattr(packing, "measured", of_kind)
    ready, study = curves(tmp_path, "auto", resources={"gpu": 1})
    assert packing.chosen(ready, study, there, said := Notes()) == 4
    assert [kind for kind, _ in workers.asked] == ["T4", "A100"]
    assert said.lines[0] == "measuring how many trials pay on one base, on T4"
    assert said.lines[2].startswith("T4: packing: 4 trials") and said.lines[3].startswith("A100: packing: 8 trials")


def test_no_more_than_half_of_the_trials_train_at_a_time(tmp_path: Path, workers: Cluster) -> None:
    assert packing.chosen(*curves(tmp_path, "auto", n_trials=20), HERE, said := Notes()) == 5, "on each of two bases"
    assert said.lines[-1] == "packing: 5 on a base, so that half of the study's trials learn from the others"
    assert packing.chosen(*curves(tmp_path, "auto", n_trials=70), HERE, said := Notes()) == 16, "+50 of them"
    assert len(workers.asked) == 1 and "learn from" not in said.lines[-1]
    assert packing.chosen(*curves(tmp_path, 12, n_trials=20), HERE, Notes()) == 12, "as it was asked for"


@given(st.integers(1, 1000), st.integers(0, 64))
def test_half_of_the_trials(n_trials: int, packs: int) -> None:
    found = packing.at_most(n_trials, packs)
    assert found >= 1
    assert found == 1 or found * max(1, packs) <= n_trials / 2


@pytest.mark.parametrize("why", ["the worker was lost", "RuntimeError: a bug"])
def test_what_cannot_be_measured_is_off_for_this_run_only(tmp_path: Path, workers: Cluster, why: str) -> None:
    ready, study = curves(tmp_path, "auto")
    workers.fails = why
    assert packing.chosen(ready, study, HERE, said := Notes()) == 1
    assert said.lines[-1] == f"packing: off: it could not be measured ({why})"
    workers.fails = ""
    assert packing.chosen(ready, study, HERE, Notes()) == 16


def test_a_trainer_that_trains_alone_is_off_with_the_reason(tmp_path: Path, workers: Cluster) -> None:
    (tmp_path / "mine.py").write_text("def train(params, trial):\n    yield {'score': 1.0}\n")
    mine = {"trainer": "custom", "trainable": f"{tmp_path / 'mine.py'}:train", "custom": {"horizon": 1}}
    ready, study = curves(tmp_path, "auto", **mine)
    assert packing.chosen(ready, study, HERE, said := Notes()) == 1
    assert said.lines == ["packing: off: the trainer custom trains each trial by itself"] and not workers.asked


@pytest.mark.parametrize(("asked", "said"), [(8, 1), ("off", 0)])
def test_an_objective_that_the_clock_measures_is_named(tmp_path: Path, asked: Any, said: int) -> None:
    metrics = {"objective": {"metrics": ["score", "train_seconds"]}}
    ready, study = curves(tmp_path, asked, **metrics)
    packing.chosen(ready, study, HERE, notes := Notes())
    line = "packing: train_seconds of a trial on a shared base depends on who is beside it"
    assert notes.lines == [line] * said


def test_a_study_that_is_packed_no_more_says_so_to_its_readers(tmp_path: Path) -> None:
    ready, study = curves(tmp_path, 8)
    packing.chosen(ready, study, HERE, Notes())
    ready, _ = curves(tmp_path, "off")
    packing.chosen(ready, study, HERE, Notes())
    assert study.user_attrs[store.PACKED] == 1


def test_what_is_timed_keeps_the_rules_and_comes_to_no_end(tmp_path: Path) -> None:
    ready, _ = curves(tmp_path, "auto", space="lora_tiny")
    timed = packing.typical(ready)
    assert len(timed) == packing.TYPICAL and len({str(params) for params in timed}) == packing.TYPICAL
    assert timed == packing.typical(ready), "of the study's seed"
    for params in timed:
        assert not [one for one in ready.space.violations(params) if "epochs" not in one.reason]
        assert Curve().horizon(params) == 100_000


def test_a_text_trial_that_counts_steps_comes_to_no_end_either(tmp_path: Path) -> None:
    data = small_model.write_data(tmp_path / "questions.jsonl")
    given = {"name": "text", "trainer": "llm_lora", "base": "a/b", "text": {"path": str(data)}, "space": "llm_lora"}
    asked = spec.from_mapping(given | {"fixed": {"max_steps": 5}}, "test")
    params = packing.far(asked, build.space_of(asked).resolve({"batch_size": 1}))
    assert "max_steps" not in params and params["epochs"] == 100_000


@pytest.mark.parametrize(
    ("trial", "nodes", "room"),
    [
        (TrialResources(1, 0), [Node("a", 2, 0, 8 * GIB)], 4 * GIB),
        (TrialResources(2, 0), [Node("a", 2, 0, 8 * GIB), Node("b", 2, 0, 6 * GIB)], 6 * GIB),
        (TrialResources(1, 0, 3 * GIB), [Node("a", 2, 0, 8 * GIB)], 3 * GIB),
        (TrialResources(4, 0), [Node("a", 2, 0, 8 * GIB)], 8 * GIB),
    ],
)
def test_the_ram_of_a_pack(trial: TrialResources, nodes: list[Node], room: int) -> None:
    assert packing.room_on("cpu", trial, Capacity.of(tuple(nodes)), 0.2) == Room(memory=room, margin=0.2)


@pytest.mark.slow
def test_on_a_real_worker(tmp_path: Path) -> None:
    ready, study = curves(tmp_path, "auto", curve={"seconds": 0.05})
    with connect.session() as there:
        assert packing.chosen(ready, study, there, said := Notes()) > 1
        assert "times the samples per second of one" in said.lines[-1]
        broken, other = curves(tmp_path / "broken", "auto", curve={"crash_above": 1e-9})
        assert packing.chosen(broken, other, there, said := Notes()) == 1
    assert said.lines[-1] == "packing: off: it could not be measured (a bug, as it was asked for)"


def test_an_error_of_the_studys_own_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise StudyError("the first line\nand a second")

    monkeypatch.setattr(connect, "run_alone", fails)
    assert packing.chosen(*curves(tmp_path, "auto"), HERE, said := Notes()) == 1
    assert said.lines[-1] == "packing: off: it could not be measured (the first line)"
