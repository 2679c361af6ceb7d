"""What an example is: turns of a conversation, or a text. And how rows of a file become examples. Loads no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.lora.text.records import Row, raise_the_first, read
from trainables.lora.text.settings import TextSettings
from tune_lora.errors import InputError, nearest

ROLES = ("system", "user", "assistant", "tool")
_OTHER_NAMES = {"human": "user", "prompter": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
    "text": ("text",),
}
"""What a row of each format must hold, in the order in which formats are looked for."""
_NAMES = ("messages", "prompt", "completion", "instruction", "input", "output", "system", "text")
_ALSO_CALLED = {"conversations": "messages", "response": "completion", "answer": "completion", "question": "prompt"}


@dataclass(frozen=True)
class Turn:
    """One turn; a `trained` one is what the model is to say."""

    role: str
    content: str
    trained: bool


@dataclass(frozen=True)
class Example:
    """A conversation (`turns`), or a `text` that is learnt as a whole. `joined`: prompt and completion that belong
    together as they stand where there is no template."""

    turns: tuple[Turn, ...] = ()
    text: str = ""
    joined: bool = False

    def digest(self) -> str:
        """SHA-256 of the content: splits and caches go by it."""
        content = [self.text, [(turn.role, turn.content, turn.trained) for turn in self.turns]]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()


def load(path: Path, settings: TextSettings) -> list[Example]:
    """The examples of a file.

    Raises:
        InputErrors: the file cannot be read, its columns are not known, or rows are not as they must be.
    """
    rows = read(path)
    _check_fields(rows[0], settings.fields, path)
    kind = settings.format if settings.format != "auto" else _told_by_columns(rows[0], settings.fields, path)
    examples: list[Example] = []
    mistakes: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            examples.append(_MAKERS[kind](_renamed(row, settings.fields)))
        except _WrongRowError as error:
            mistakes.append(f"{path}: example {number}: {error}")
    raise_the_first(mistakes)
    return examples


def _check_fields(row: Row, fields: Mapping[str, str], path: Path) -> None:
    for ours, theirs in fields.items():
        if ours not in _NAMES:
            raise InputError(f"fields: unknown field {ours!r}; {nearest(ours, _NAMES)}")
        if theirs not in row:
            raise InputError(f"{path}: fields.{ours}: no column {theirs!r}; {nearest(theirs, map(str, row))}")


def _told_by_columns(row: Row, fields: Mapping[str, str], path: Path) -> str:
    known = _renamed(row, fields)
    for kind, columns in _COLUMNS.items():
        if all(name in known for name in columns):
            return kind
    wanted = "; ".join(" and ".join(columns) for columns in _COLUMNS.values())
    raise InputError(
        f"{path}: got the columns {', '.join(map(str, row))}; must hold one of: {wanted} (or name them under `fields`)"
    )


def _renamed(row: Row, fields: Mapping[str, str]) -> dict[str, Any]:
    """The row under our names: those the user gave, else what columns are usually called."""
    known = {ours: row[theirs] for ours, theirs in fields.items() if theirs in row}
    for name, value in row.items():
        known.setdefault(name, value)
    for theirs, ours in _ALSO_CALLED.items():
        if theirs in row:
            known.setdefault(ours, row[theirs])
    return known


class _WrongRowError(ValueError):
    """What is wrong with a row."""


def _words(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise _WrongRowError(f"{name}: got {_short(value)}; must be text")
    return value


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _conversation(row: Mapping[str, Any]) -> Example:
    return Example(_answered(_turns(row.get("messages"), "messages")))


def _turns(given: Any, name: str) -> list[Turn]:
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise _WrongRowError(f"{name}: got {_short(given)}; must be a list of turns")
    turns = []
    for number, turn in enumerate(given, start=1):
        if not isinstance(turn, Mapping):
            raise _WrongRowError(f"{name}: turn {number}: got {_short(turn)}; must hold role and content")
        role = turn.get("role", turn.get("from"))
        role = _OTHER_NAMES.get(str(role), role)
        if role not in ROLES:
            raise _WrongRowError(f"{name}: turn {number}: got the role {role!r}; {nearest(str(role), ROLES)}")
        content = turn.get("content", turn.get("value"))
        if not isinstance(content, str):
            raise _WrongRowError(f"{name}: turn {number}: content: got {_short(content)}; must be text")
        turns.append(Turn(role, content, role == "assistant"))
    return turns


def _answered(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns up to the last answer: what follows it is never learnt."""
    last = max((index for index, turn in enumerate(turns) if turn.trained and turn.content.strip()), default=None)
    if last is None:
        raise _WrongRowError("no turn of the assistant has any content; must have an answer to learn")
    return tuple(turns[: last + 1])


def _prompted(row: Mapping[str, Any]) -> Example:
    if not isinstance(row.get("prompt"), str):
        asked = [Turn(turn.role, turn.content, False) for turn in _turns(row.get("prompt"), "prompt")]
        return Example(_answered([*asked, *_turns(row.get("completion"), "completion")]))
    question, answer = _words(row, "prompt"), _words(row, "completion")
    return Example(_answered([*_system(row), Turn("user", question, False), Turn("assistant", answer, True)]), "", True)


def _instructed(row: Mapping[str, Any]) -> Example:
    more = _words(row, "input").strip() if row.get("input") else ""
    question = _words(row, "instruction") + (f"\n\n{more}" if more else "")
    answer = Turn("assistant", _words(row, "output"), True)
    return Example(_answered([*_system(row), Turn("user", question, False), answer]))


def _system(row: Mapping[str, Any]) -> list[Turn]:
    return [Turn("system", _words(row, "system"), False)] if row.get("system") else []


def _written(row: Mapping[str, Any]) -> Example:
    text = _words(row, "text")
    if not text.strip():
        raise _WrongRowError("text is empty; must hold words to learn")
    return Example(text=text)


_MAKERS: Mapping[str, Callable[[Mapping[str, Any]], Example]] = {
    "messages": _conversation,
    "prompt_completion": _prompted,
    "instruction": _instructed,
    "text": _written,
}
