"""Two writers of one trial folder: the one that was taken for lost writes nothing more, and no report is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables import checkpoints, incarnations
from trainables.curve import Curve
from trainables.incarnations import Incarnation, Superseded
from trainables.ray_adapter import trainable_for


def started(folder: Path, epochs: int = 6):
    config = {
        "params": {"learning_rate": 1e-3, "max_train_epochs": epochs},
        "trial": {"number": 3, "folder": str(folder), "seed": 1, "decide_at": []},
    }
    return trainable_for(Curve(), "score", threads=1)(config)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_node_that_comes_back_finds_that_its_trial_goes_on_elsewhere(tmp_path: Path) -> None:
    zombie = started(tmp_path)
    zombie.train()
    zombie.train()
    successor = started(tmp_path)
    assert successor.train()["budget"] == 2
    successor.train()
    before = content(tmp_path)
    told = zombie.train()  # no failure: Ray would start the trial again, and it would throw the other one out
    assert told["done"] and told["superseded"] and "budget" not in told
    assert content(tmp_path) == before
    assert [successor.train()["budget"] for _ in range(3)] == [4, 5, 6]


def test_a_worker_that_is_set_up_and_not_used_takes_nothing_over(tmp_path: Path) -> None:
    trial = started(tmp_path)
    trial.train()
    started(tmp_path)
    assert trial.train()["budget"] == 2


def test_all_that_led_to_the_checkpoint_is_told_again_in_one_result(tmp_path: Path) -> None:
    first = started(tmp_path)
    told = [first.train() for _ in range(3)]
    again = started(tmp_path).train()
    assert again["budget"] == 3 and again["score"] == told[-1]["score"]
    assert [one["budget"] for one in again["missed"]] == [1, 2]
    assert [one["score"] for one in again["missed"]] == [one["score"] for one in told[:2]]


def test_after_a_damaged_checkpoint_the_one_before_is_told_and_the_clock_goes_on(tmp_path: Path) -> None:
    first = started(tmp_path)
    spent = [first.train()["seconds"] for _ in range(3)][-1]
    (tmp_path / "checkpoint" / "00000003" / "curve.json").write_text("")
    again = started(tmp_path).train()
    assert again["budget"] == 2 and again["seconds"] == spent
    (line,) = again["happened"]
    assert line.startswith("trial 3: checkpoint/00000003 is damaged (curve.json has 0 bytes, had ")
    assert line.endswith("); it goes on from epoch 2")


def test_where_nothing_can_be_restored_the_first_report_says_so(tmp_path: Path) -> None:
    started(tmp_path).train()
    (tmp_path / "checkpoint" / "00000001" / "curve.json").unlink()
    result = started(tmp_path).train()
    assert result["budget"] == 1 and "missed" not in result
    (line,) = result["happened"]
    assert line.endswith("(curve.json is missing); it goes on from the beginning")


def test_each_beginning_has_a_number_of_its_own(tmp_path: Path) -> None:
    begun = [Incarnation.begin(tmp_path) for _ in range(4)]
    assert [one.number for one in begun] == [1, 2, 3, 4]
    begun[-1].check()
    for earlier in begun[:-1]:
        with pytest.raises(Superseded):
            earlier.report({"budget": 1})


def test_what_a_full_disk_left_of_a_line_is_passed_over(tmp_path: Path) -> None:
    trial = started(tmp_path)
    trial.train()
    with (tmp_path / "reports" / "0001.jsonl").open("ab") as stream:
        stream.write(b'\n{"budget": 2, "metr')
    trial.train()
    found, _ = checkpoints.restorable(tmp_path)
    assert found is not None
    assert [one["budget"] for one in incarnations.reported(tmp_path, found)] == [1, 2]


EVENTS = st.lists(st.sampled_from(["report", "report", "restart", "zombie reports", "damage"]), max_size=25)


@given(EVENTS)
@settings(max_examples=60)
def test_whatever_happens_what_is_restored_was_reported_without_a_gap(tmp_path_factory, events: list[str]) -> None:
    folder = tmp_path_factory.mktemp("trial")
    lives: list[tuple[Incarnation, int]] = []

    def begin() -> None:
        incarnation = Incarnation.begin(folder)
        found, _ = checkpoints.restorable(folder)
        incarnation.goes_on_from(found)
        lives.append((incarnation, found.budget if found else 0))
        if found:
            led = [(one["budget"], one["by"]) for one in incarnations.reported(folder, found)]
            assert [budget for budget, _ in led] == list(range(1, found.budget + 1))
            assert [by for _, by in led] == sorted(by for _, by in led), "a later start's report before an earlier's"

    def report(index: int, blind: bool) -> None:
        incarnation, done = lives[index]
        budget = done + 1
        if blind:  # it looked just before it was replaced
            incarnation._append({"budget": budget, "by": incarnation.number, "seconds": 1.0})
        else:
            incarnation.report({"budget": budget, "by": incarnation.number, "seconds": 1.0})
        check = (lambda: None) if blind else incarnation.check
        save = lambda place: (place / "state").write_text(f"{budget} by {incarnation.number}")  # noqa: E731
        checkpoints.write(folder, budget, save, incarnation=incarnation.number, check=check)
        lives[index] = (incarnation, budget)

    begin()
    for event in events:
        if event == "restart":
            begin()
        elif event == "report":
            report(-1, blind=False)
        elif event == "zombie reports" and len(lives) > 1:
            report(-2, blind=True)
        elif event == "damage" and (found := checkpoints.newest(folder)) is not None:
            (found / "state").write_text("")
            begin()
    begin()
