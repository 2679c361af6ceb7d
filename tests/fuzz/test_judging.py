"""What must not happen is found when it happens."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.fuzz import judging, kinds, running
from benchmarks.fuzz.judging import Outcome, judge, unclear_in
from tune_lora.errors import InputError, InputErrors, StudyError


def raising(error: BaseException) -> Callable[[Path], None]:
    def door(_: Path) -> None:
        raise error

    return door


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (InputError("study.yaml: name: is missing; must be given"), "refused"),
        (InputErrors(["study.yaml:1: a: got 1", "study.yaml:2: b: got 2"]), "refused"),
        (FileNotFoundError(2, "No such file or directory", "study.yaml"), "refused"),
        (OSError("of nothing that somebody named"), "traceback"),
        (KeyError("name"), "traceback"),
        (AssertionError("another study"), "traceback"),
        (RecursionError(), "traceback"),
        (MemoryError(), "memory"),
        (InputErrors([]), "refused"),
        (InputErrors([""]), "unclear"),
        (StudyError("first line\nsecond line"), "unclear"),
        (StudyError("study.yaml: " + "x" * 600), "unclear"),
        (StudyError("study.yaml: \x1b[2J"), "unclear"),
        (InputError("wrong"), "unclear"),
    ],
)
def test_an_error_is_clear_or_bad(error: BaseException, what: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").touch()
    assert judge(raising(error), tmp_path).what == what


def test_a_right_result_may_write_and_a_refusal_may_not(tmp_path: Path) -> None:
    def written(folder: Path) -> None:
        (folder / "new").touch()

    def half_written(folder: Path) -> None:
        (folder / "other").touch()
        raise InputError("study.yaml: name: is missing")

    assert judge(written, tmp_path) == Outcome("right")
    assert judge(half_written, tmp_path).what == "written"


def test_what_was_given_is_left_as_it_was(tmp_path: Path) -> None:
    given = tmp_path / "study.yaml"
    given.write_text("name: a")
    assert judge(lambda _: given.write_text("name: b"), tmp_path).what == "written"
    assert judge(lambda _: given.unlink(), tmp_path).what == "written"


def test_what_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "DEADLINE", 0.2)
    assert judge(lambda _: time.sleep(60), tmp_path).what == "hang"


def test_remarks_on_stderr_are_bad(tmp_path: Path) -> None:
    class Finalized:
        def __del__(self) -> None:
            raise ValueError("nobody catches this")

    assert judge(lambda _: warnings.warn("look", UserWarning, stacklevel=1), tmp_path).what == "warning"
    assert judge(lambda _: Finalized(), tmp_path).what == "traceback"


def test_a_line_says_where_it_is() -> None:
    assert unclear_in("search.seed: got -1; must be 0 or more", Path("/nowhere")) == ""
    assert "neither" in unclear_in("wrong", Path("/nowhere"))


def test_a_process_that_dies_is_a_bad_outcome(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = kinds.Kind(kinds.KINDS["expression"].files, lambda _: os._exit(9))
    monkeypatch.setattr(running, "KINDS", {"dying": dying})
    batch = running.run_apart("dying", 0, 5, root, tmp_path)
    assert batch.outcomes == {"died": 1}
    assert (tmp_path / "dying-0-died" / "expression.txt").is_file()  # the input that did it is kept


def test_memory_is_bounded(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def eager(_: Path) -> None:
        bytearray(2 * running.MEMORY)

    monkeypatch.setattr(running, "KINDS", {"eager": kinds.Kind(kinds.KINDS["expression"].files, eager)})
    assert running.run_apart("eager", 0, 3, root, tmp_path).outcomes == {"memory": 3}


def test_what_was_judged_is_read_back(tmp_path: Path) -> None:
    batches = [running.Batch("study", 1, {"right": 3, "hang": 1}, [{"what": "hang"}], 2.5), running.Batch("set", 1)]
    for batch in batches:
        running.record(batch, tmp_path / "progress.jsonl")
    assert list(running.recorded(tmp_path / "progress.jsonl")) == batches
    assert batches[0].count == 4
    assert list(running.recorded(tmp_path / "none")) == []


def test_kinds_take_turns_until_there_is_enough() -> None:
    assert list(running.planned(45, 10, ["a", "b"])) == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)]
