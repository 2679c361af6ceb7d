"""Answers are on the disk when they were given, whole or not at all, and in the study."""

from __future__ import annotations

import io
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from tests.postgres import postgres, skip_where_missing
from tests.tune_lora import rated
from tune_lora import preferences, ratings, store, view
from tune_lora.errors import InputError
from tune_lora.ratings import Ratings

pytestmark = pytest.mark.alone

WRITES = """
import sys
from pathlib import Path
from tune_lora.ratings import Ratings
for number in range(int(sys.argv[2])):
    Ratings(Path(sys.argv[1])).judge(0, 1, "left", sys.argv[3])
    print(number, flush=True)
"""


def _judge_often(folder: Path, rater: str) -> None:
    for _ in range(40):
        Ratings(folder).judge(0, 1, "left", rater)


def writer(folder: Path, times: int, rater: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITES, str(folder), str(times), rater]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rated.study(tmp_path_factory.mktemp("results") / "milo", 4)


@pytest.fixture
def folder(study: Path, tmp_path: Path) -> Path:
    """A copy of its own of the study's database."""
    (tmp_path / "study.db").write_bytes((study / "study.db").read_bytes())
    return tmp_path


class TestFile:
    def test_without_one_there_is_nothing(self, tmp_path: Path) -> None:
        assert Ratings(tmp_path).judgements() == []
        assert Ratings(tmp_path).undo("anna") is None
        assert not (tmp_path / "ratings.jsonl").exists()

    def test_an_answer_is_one_line_of_json(self, tmp_path: Path) -> None:
        key = Ratings(tmp_path).judge(3, 5, "tie", "anna", question="who?", budgets=[4, 8])
        (line,) = (tmp_path / "ratings.jsonl").read_text("utf-8").splitlines()
        told = json.loads(line)
        assert told.pop("at").startswith("20")
        assert told.pop("id") == key
        assert told == {"rater": "anna", "left": 3, "right": 5, "choice": "tie", "question": "who?", "budgets": [4, 8]}

    def test_undo_takes_back_the_rater_s_own_last_answer(self, tmp_path: Path) -> None:
        held = Ratings(tmp_path)
        held.judge(0, 1, "left", "anna")
        held.judge(1, 2, "left", "anna")
        held.judge(2, 3, "left", "ben")
        undone = held.undo("anna")
        assert undone is not None and undone.pair == (1, 2)
        assert [(one.rater, one.pair) for one in held.judgements()] == [("anna", (0, 1)), ("ben", (2, 3))]
        held.undo("anna")
        assert held.undo("anna") is None
        assert len(held.lines()) == 5, "what was taken back is still written down"

    def test_half_a_line_at_the_end_is_no_line(self, tmp_path: Path) -> None:
        held = Ratings(tmp_path)
        held.judge(0, 1, "left", "anna")
        whole = held.path.read_bytes()
        held.path.write_bytes(whole + whole[:-20])
        assert len(held.judgements()) == 1
        held.judge(1, 2, "right", "anna")
        assert [one.pair for one in held.judgements()] == [(0, 1), (1, 2)]
        assert all(json.loads(line) for line in held.path.read_text("utf-8").splitlines())

    @pytest.mark.parametrize(
        "line",
        [
            *(b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"id": "a", "at": "", "rater": "b"}'),
            b'{"id": "a", "at": "", "rater": "b", "left": 1, "right": 1, "choice": "left"}',
            b'{"id": "a", "at": "", "rater": "b", "left": 1, "right": 2, "choice": "both"}',
            b'{"id": 1, "at": "", "rater": "b", "left": 1, "right": 2, "choice": "left"}',
        ],
    )
    def test_a_broken_line_is_named(self, tmp_path: Path, line: bytes) -> None:
        held = Ratings(tmp_path)
        held.judge(0, 1, "left", "anna")
        held.path.write_bytes(held.path.read_bytes() + line + b"\n")
        with pytest.raises(InputError, match=r"ratings\.jsonl:2: is no judgement"):
            held.judgements()

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "other").write_text("mine\n")
        (tmp_path / "ratings.jsonl").symlink_to(tmp_path / "other")
        with pytest.raises(OSError, match="symbolic links"):
            Ratings(tmp_path).judge(0, 1, "left", "anna")
        assert (tmp_path / "other").read_text() == "mine\n"

    def test_several_programs_write_whole_lines(self, tmp_path: Path) -> None:
        fork = multiprocessing.get_context("fork")
        writers = [fork.Process(target=_judge_often, args=(tmp_path, rater)) for rater in ("anna", "ben", "cem")]
        for one in writers:
            one.start()
        for one in writers:
            one.join()
        assert [one.exitcode for one in writers] == [0, 0, 0]
        said = [one.rater for one in Ratings(tmp_path).judgements()]
        assert {rater: said.count(rater) for rater in said} == {"anna": 40, "ben": 40, "cem": 40}

    def test_what_was_answered_is_there_when_the_program_is_killed(self, tmp_path: Path) -> None:
        running = writer(tmp_path, 10_000, "anna")
        assert running.stdout is not None
        told = [running.stdout.readline() for _ in range(5)]
        running.kill()
        rest = running.stdout.read()
        running.stdout.close()
        running.wait()
        answered = len([*told, *rest.splitlines()])
        assert answered <= len(Ratings(tmp_path).judgements()) <= answered + 1

    @pytest.mark.parametrize("name", ["anna", "Anna B.", "üzgür-2", "a@b", "x" * 40])
    def test_names(self, name: str) -> None:
        assert ratings.checked_name(name) == name

    @pytest.mark.parametrize("name", ["", " anna", "x" * 41, "a/b", "a\nb", "<b>", "../x"])
    def test_names_that_are_none(self, name: str) -> None:
        with pytest.raises(InputError, match="--rater: got"):
            ratings.checked_name(name)


class TestStudy:
    def test_answers_come_into_the_study_with_what_they_come_to(self, folder: Path) -> None:
        held = Ratings(folder)
        for left, right in ((0, 1), (1, 2), (2, 3)):
            held.judge(left, right, "left", "anna")
        ratings.keep(folder)
        record = store.load(folder)
        found = preferences.of(record)
        assert found is not None and [one.trial for one in found.likings] == [0, 1, 2, 3]
        stored = store.load_study(folder).user_attrs[store.PREFERENCE]
        assert stored == {str(one.trial): pytest.approx(one.score, abs=1e-4) for one in found.likings}

    def test_keeping_twice_changes_nothing(self, folder: Path) -> None:
        Ratings(folder).judge(0, 1, "left", "anna")
        ratings.keep(folder)
        before = (folder / "study.db").read_bytes()
        ratings.keep(folder)
        assert (folder / "study.db").read_bytes() == before

    def test_what_is_taken_back_leaves_the_study(self, folder: Path) -> None:
        held = Ratings(folder)
        held.judge(0, 1, "left", "anna")
        ratings.keep(folder)
        held.undo("anna")
        ratings.keep(folder)
        assert store.load(folder).ratings == ()
        assert store.load_study(folder).user_attrs[store.PREFERENCE] == {}

    def test_answers_of_others_stay(self, folder: Path) -> None:
        study = store.load_study(folder)
        theirs = {"id": "x", "at": "2026-01-01", "rater": "ben", "left": 2, "right": 3, "choice": "tie"}
        mine = {**theirs, "id": "y", "rater": "anna"}
        study.set_user_attr(f"{store.RATINGS_PREFIX}ben", [theirs])
        study.set_user_attr(f"{store.RATINGS_PREFIX}anna", [mine])  # given on another machine
        Ratings(folder).judge(0, 1, "left", "anna")
        ratings.keep(folder)
        stored = {(one["rater"], one["left"]) for one in store.load(folder).ratings}
        assert stored == {("ben", 2), ("anna", 2), ("anna", 0)}

    def test_a_database_server_keeps_them_as_well(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        skip_where_missing()
        with postgres() as running:
            monkeypatch.setenv("TUNE_LORA_STORAGE", running.url)
            folder = rated.study(tmp_path / "served", 4, storage=running.url)
            Ratings(folder).judge(0, 1, "left", "anna")
            ratings.keep(folder)
            found = preferences.of(store.load(folder))
            assert found is not None and found.liking(0) is not None
            other = optuna.load_study(study_name="served", storage=running.url.replace("://", "+psycopg://", 1))
            assert other.user_attrs[f"{store.RATINGS_PREFIX}anna"][0]["choice"] == "left"


def test_what_is_liked_stands_in_the_table_of_the_best(folder: Path) -> None:
    for left, right in ((3, 0), (3, 1), (2, 0)):
        Ratings(folder).judge(left, right, "left", "anna")
    console = Console(file=io.StringIO(), width=200)
    console.print(view.top_table(store.load(folder)))
    assert "liked" not in console.file.getvalue()  # type: ignore[attr-defined] # it is the StringIO above
    ratings.keep(folder)
    console.print(view.top_table(store.load(folder)))
    shown = console.file.getvalue()  # type: ignore[attr-defined] # as above
    assert "liked" in shown and "rated: 3 pairs of 4 trials by 1 rater (anna)" in shown
    assert "people and the score: too few to say" in shown
