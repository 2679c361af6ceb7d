"""One rater at work: which pair is shown, what an answer does. Knows nothing of HTTP."""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_lora import pairs, preferences, wording
from tune_lora.pairs import Shown
from tune_lora.preferences import Choice, Judgement
from tune_lora.rating import _pictures
from tune_lora.ratings import Ratings
from tune_lora.store import StudyRecord


@dataclass(frozen=True)
class Candidate:
    """A trial that can be judged: its number, at which budget its pictures were made, and their files."""

    number: int
    budget: int
    pictures: tuple[Path, ...]


def candidates(record: StudyRecord, folder: Path, top: int) -> list[Candidate]:
    """The best `top` completed trials that have pictures which can be shown."""
    is_sheet = wording.draws(record)
    found: list[Candidate] = []
    for trial in record.ranked():
        if len(found) == top:
            break
        files = _pictures.newest(trial, folder)
        if files and all(_pictures.shown(file, is_sheet=is_sheet) is not None for file in files):
            found.append(Candidate(trial.number, max(trial.images), files))
    return found


@dataclass(frozen=True)
class _Current:
    """The pair that is shown: under which name, and its pictures on either side by names that nobody has seen."""

    key: str
    shown: Shown
    left: Mapping[str, Path]
    right: Mapping[str, Path]


@dataclass
class Session:
    """What one rater is shown, and what was answered.

    `total` is how many pairs are asked for in all, counting those of earlier sessions. Pictures are known outside by
    names that are drawn for each pair, so that none can be recognized.
    """

    record: StudyRecord
    candidates: Sequence[Candidate]
    ratings: Ratings
    rater: str
    total: int
    question: str
    _current: _Current | None = None

    def state(self) -> dict[str, Any]:
        """What the page shows: plain data. `pair` is None once all pairs that were asked for are judged."""
        done = len(self._mine())
        pair = None if done >= self.total else self._shown_pair()
        return {
            "question": self.question,
            "rater": self.rater,
            "done": done,
            "total": self.total,
            "can_undo": done > 0,
            "more": len(self.candidates),
            "pair": pair,
        }

    def judge(self, pair: str, choice: Choice) -> bool:
        """Writes down what was answered to the pair that is shown; False where another one is shown by now, such as
        when an answer is sent a second time.

        Raises:
            OSError: it cannot be written; the pair stays.
        """
        if self._current is None or pair != self._current.key:
            return False
        shown = self._current.shown
        budgets = {one.number: one.budget for one in self.candidates}
        at = [budgets[shown.left], budgets[shown.right]]
        self.ratings.judge(shown.left, shown.right, choice, self.rater, budgets=at, question=self.question)
        self._current = None
        return True

    def undo(self) -> bool:
        """Takes the last answer back, and shows its pair again as it was; False where there is none."""
        undone = self.ratings.undo(self.rater)
        if undone is None:
            return False
        is_here = {undone.left, undone.right} <= {one.number for one in self.candidates}
        self._current = self._showing(Shown(undone.left, undone.right)) if is_here else None
        return True

    def more(self) -> None:
        """Asks for as many pairs more as there are trials."""
        self.total = max(self.total, len(self._mine())) + len(self.candidates)

    def picture(self, name: str) -> bytes | None:
        """A picture of the pair that is shown, as PNG; None where there is none of that name."""
        current = self._current
        path = None if current is None else {**current.left, **current.right}.get(name)
        return None if path is None else _pictures.shown(path, is_sheet=wording.draws(self.record))

    def _shown_pair(self) -> dict[str, Any]:
        if self._current is None:
            self._current = self._showing(self._next())
        return {"id": self._current.key, "left": list(self._current.left), "right": list(self._current.right)}

    def _showing(self, shown: Shown) -> _Current:
        files = {one.number: one.pictures for one in self.candidates}
        left, right = ({secrets.token_hex(16): file for file in files[one]} for one in (shown.left, shown.right))
        return _Current(secrets.token_hex(8), shown, left, right)

    def _next(self) -> Shown:
        said = self._all()
        # Drawn from what there is, so that a page that is loaded again after a restart goes on with the same pair.
        draw = random.Random(f"{self.record.name} {self.rater} {len(self.ratings.lines())}")
        return pairs.next_pair([one.number for one in self.candidates], said, self.rater, draw)

    def _mine(self) -> list[Judgement]:
        return [one for one in self.ratings.judgements() if one.rater == self.rater]

    def _all(self) -> list[Judgement]:
        """Everybody's answers: this file's, and those of other raters that are in the study only."""
        here = self.ratings.judgements()
        raters = {one.rater for one in here} | {self.rater}
        return [one for one in preferences.judgements_in(self.record) if one.rater not in raters] + here
