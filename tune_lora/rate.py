"""`tune-lora rate`: people judge the pictures of a study, and what they prefer becomes data of it."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from pathlib import Path

from tune_lora import pairs, preferences, rating, ratings, sources, store
from tune_lora.errors import InputError, StudyError
from tune_lora.preferences import Preferences
from tune_lora.store import StudyRecord

QUESTION = "Which one do you like better?"
TOP = 12
"""Trials that are compared unless asked otherwise."""
LONGEST_QUESTION = 120


def session(
    results: Path, *, rater: str | None = None, top: int = TOP, n_pairs: int | None = None, question: str = QUESTION
) -> tuple[rating.Session, Path]:
    """What one rater is shown of a study, and the study's folder. Nothing is written.

    Raises:
        InputError: there is no study, fewer than two of its trials have pictures, or a name is none.
    """
    folder = sources.results_folder(results)
    name = ratings.checked_name(rater if rater is not None else _user())
    if not question.strip() or len(question) > LONGEST_QUESTION:
        raise InputError(f"--question: got {len(question)} characters; must be 1 to {LONGEST_QUESTION}")
    record = store.load(folder)
    found = rating.candidates(record, folder, top)
    if len(found) < 2:
        raise InputError(
            f"{folder}: {len(found)} completed trials have pictures in {folder / 'trials'}; must be two or more to "
            "compare them"
        )
    total = pairs.planned(len(found)) if n_pairs is None else n_pairs
    kept = ratings.Ratings(folder)
    kept.lines()  # a broken file is said before anything is served
    return rating.Session(record, found, kept, name, total, question), folder


def rate(
    results: Path,
    ready: Callable[[str, rating.Session], None],
    *,
    rater: str | None = None,
    top: int = TOP,
    n_pairs: int | None = None,
    question: str = QUESTION,
    port: int | None = None,
) -> tuple[StudyRecord, Preferences | None]:
    """Serves the page until the rater is done or ends the program; returns the study and what it says by then.

    `ready` gets the page's address and what is asked. Every answer is in ``ratings.jsonl`` when it was given, and in
    the study soon after.

    Raises:
        InputError: as `session` does, or the port cannot be had.
        StudyError: the study's storage does not answer at the end; the answers are in the file.
    """
    asked, folder = session(results, rater=rater, top=top, n_pairs=n_pairs, question=question)
    ratings.keep(folder)  # what an earlier session could not
    rating.serve(asked, port, lambda address: ready(address, asked), lambda: _keep_if_possible(folder))
    ratings.keep(folder)
    record = store.load(folder)
    return record, preferences.of(record)


def _keep_if_possible(folder: Path) -> None:
    try:
        ratings.keep(folder)
    except StudyError:  # the file has them, and the end of the session tries again
        return


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return "rater"
    return "".join(letter if letter.isalnum() or letter in " .@-" else "-" for letter in name)[: ratings.LONGEST_NAME]
