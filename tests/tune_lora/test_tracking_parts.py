"""The pure parts of tracking: what is told of a trial, what is kept of it, what is on a sheet."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tune_lora.tracked import place, sheet, study, trial
from trainables import cells
from trainables.cells import Cell
from trainables.protocol import Cause
from tune_lora.records import Objective
from tune_lora.tracking import run_id
from tune_lora.tracking_journal import FILE, Journal
from tune_lora.tracking_messages import end_of, harmless, line, message, tags
from tune_lora.tracking_pictures import MOST, pictures

ENDS = {"complete": "finished", "pruned": "finished", "running": None, "waiting": None}


class TestMessages:
    @pytest.mark.parametrize("cause", Cause)
    def test_only_what_the_infrastructure_ended_is_crashed(self, cause: Cause) -> None:
        expected = "crashed" if cause is Cause.INFRASTRUCTURE else "failed"
        assert end_of(trial(0, 1, "failed", cause=cause)) == expected

    @pytest.mark.parametrize(("state", "end"), ENDS.items())
    def test_other_ends(self, state: str, end: str | None) -> None:
        assert end_of(trial(0, 1, state)) == end

    def test_tags_say_where_a_trial_is_from(self) -> None:
        told = trial(3, 2, "failed", cause=Cause.CRASH, provenance="prior:trial_3_5")
        assert tags(told, best=False) == ["failed", "crash", "prior:trial_3_5"]
        long = trial(3, 2, "complete", provenance="carried:" + "x" * 100)
        assert all(len(tag) <= 64 for tag in tags(long, best=True))

    @given(epochs=st.lists(st.integers(0, 30), min_size=1, max_size=8).map(sorted))
    def test_however_often_it_is_looked_at_each_budget_is_told_once(self, epochs: list[int]) -> None:
        known: set[int] = set()
        told: list[int] = []
        for seen in epochs:
            rows = message(study(), trial(0, seen), place(Path("/x")), known=known)["rows"]
            told += [budget for budget, _, _ in rows]
            known.update(told)
        assert told == list(range(1, epochs[-1] + 1))

    def test_news_of_a_running_trial_is_its_rows_and_no_more(self) -> None:
        told = message(study(), trial(0, 3), place(Path("/x")), known={1})
        assert sorted(told) == ["rows", "trial"]

    def test_a_study_with_several_objectives_tells_each_value(self) -> None:
        both = dataclasses.replace(study(), objectives=(Objective("score"), Objective("train_seconds")))
        told = message(both, trial(0, 2, "complete", value=None, values=(0.5, 9.0)), place(Path("/x")))
        assert (told["summary"]["value/score"], told["summary"]["value/train_seconds"]) == (0.5, 9.0)

    def test_a_winner_without_files_has_no_artifact(self, tmp_path: Path) -> None:
        assert message(study(), trial(0, 2, "complete"), place(tmp_path), best=True)["artifact"] is None

    def test_secrets_are_taken_out_wherever_they_stand(self) -> None:
        config = {"url": "postgresql://me:hush@db/x", "nested": [{"token": "it is s3cr3t-value"}], "rate": math.nan}
        told = json.loads(line(message(study(), trial(0, 1, config=config), place(Path("/x")))))
        kept = harmless(told, {"SOME_TOKEN": "s3cr3t-value"})["config"]
        assert kept["url"] == "postgresql://me:***@db/x"
        assert kept["nested"] == [{"token": "it is ***"}]
        assert kept["rate"] is None

    def test_a_study_begun_anew_has_other_runs(self) -> None:
        names = [run_id(token, number) for token in ("a", "b") for number in (0, 1, 10)]
        assert len(set(names)) == len(names)
        assert run_id("a", 1) == run_id("a", 1)


class TestJournal:
    def test_the_newest_line_of_a_trial_counts(self, tmp_path: Path) -> None:
        first, second = Journal(tmp_path, "one"), Journal(tmp_path, "two")
        first.note(trial=0, id="a", end="finished", where="offline", best=True)
        second.note(trial=0, id="a", end="finished", where="online", best=False)
        second.note(trial=1, id="b", end="failed", where="online", best=True)
        assert {number: told["where"] for number, told in second.ended().items()} == {0: "online", 1: "online"}
        assert first.ended(mine=True)[0]["where"] == "offline"
        assert second.best() == 1

    def test_sessions_hear_their_own_problems(self, tmp_path: Path) -> None:
        first, second = Journal(tmp_path, "one"), Journal(tmp_path, "two")
        first.note(problem="no answer")
        first.note(problem="no answer")
        assert first.said("problem") == ["no answer"]
        assert second.said("problem") == []

    @given(cut=st.integers(0, 200))
    def test_a_line_that_was_cut_off_swallows_no_other(
        self, cut: int, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.mktemp("journal")
        journal = Journal(folder, "one")
        journal.note(trial=0, id="a", end="finished", where="online", best=False)
        whole = (folder / FILE).read_bytes()
        (folder / FILE).write_bytes(whole[: min(cut, len(whole))])
        journal.note(trial=1, id="b", end="finished", where="online", best=False)
        assert 1 in journal.ended()

    def test_there_is_none_yet(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / "nowhere", "one")
        assert (journal.ended(), journal.best(), journal.said("url")) == ({}, None, [])


class TestPictures:
    def test_a_sheet_is_taken_apart(self, tmp_path: Path) -> None:
        (relative,) = sheet(tmp_path, 0)[2].values()
        found = pictures({"epoch 2": str(tmp_path / relative)})
        told = [(one.prompt, one.seed, one.failed) for one in found]
        assert told == [
            ("front, happy", 10, False),
            ("side, sad", 11, False),
            ("back", 12, False),
            ("front, black", 13, True),
        ]
        assert [one.image.getpixel((5, 5)) for one in found] == [(n,) * 3 for n in (50, 100, 150, 0)]

    def test_a_picture_that_says_nothing_of_itself_is_one(self, tmp_path: Path) -> None:
        from PIL import Image

        Image.new("RGB", (20, 10), (1, 2, 3)).save(tmp_path / "plain.png")
        (found,) = pictures({"a curve": str(tmp_path / "plain.png")})
        assert (found.prompt, found.seed, found.image.size) == ("a curve", None, (20, 10))

    def test_they_are_not_without_end(self, tmp_path: Path) -> None:
        (relative,) = sheet(tmp_path, 0)[2].values()
        sheets = {str(index): str(tmp_path / relative) for index in range(MOST)}
        assert len(pictures(sheets)) == MOST


BOXES = st.tuples(st.integers(0, 49), st.integers(0, 49), st.integers(50, 99), st.integers(50, 99))


class TestCells:
    @given(st.lists(st.builds(Cell, st.text(), BOXES, st.none() | st.integers(), st.booleans())))
    def test_what_is_written_is_read(self, written: list[Cell]) -> None:
        assert cells.cells_of({cells.KEY: cells.as_text(written)}, (100, 100)) == written

    @given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
    def test_whatever_stands_there_does_no_harm(self, told: Any) -> None:
        assert cells.cells_of({cells.KEY: json.dumps(told)}, (100, 100)) == []

    @pytest.mark.parametrize("text", ["", "no JSON", '[{"label": "a"}]', '[{"label": "a", "box": [0, 0, 200, 10]}]'])
    def test_a_sheet_of_somebody_else_is_no_sheet(self, text: str) -> None:
        assert cells.cells_of({cells.KEY: text}, (100, 100)) == []

    def test_a_box_outside_of_the_picture_is_never_cut_out(self) -> None:
        rng = random.Random(0)
        for _ in range(200):
            left, top, right, bottom = (rng.randrange(-20, 130) for _ in range(4))
            box = (left, top, right, bottom)
            found = cells.cells_of({cells.KEY: cells.as_text([Cell("a", box)])}, (100, 100))
            assert all(0 <= one.box[0] < one.box[2] <= 100 and 0 <= one.box[1] < one.box[3] <= 100 for one in found)
