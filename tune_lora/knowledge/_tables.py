"""Configurations and past results as people keep them: CSV, YAML, JSON, or a list in the study file.

An entry is flat (``learning_rate: 1e-4, value: 0.2``) or has its values under ``params``. A table that a study left
behind (``all_trials.csv``) is read as well: its ``params.*`` columns, of the trials that completed.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces import documents
from search_spaces.domains import Categorical, Domain
from search_spaces.space import Space
from tune_lora.errors import InputError, nearest
from tune_lora.knowledge._translate import whole

SEED = "seed"
OWN = ("name", "value", "note", SEED)


@dataclass(frozen=True)
class Row:
    """One entry. `place` is where it stands, for messages; `seed` that of its trial, where it says one."""

    place: str
    name: str
    params: Mapping[str, Any]
    value: float | None = None
    note: str = ""
    seed: int | None = None


def read(given: str | Sequence[Mapping[str, Any]], where: str, space: Space, mistakes: list[str]) -> list[Row]:
    """The entries of a file, or of a list in the study file; `where` is the setting. Mistakes are collected.

    Names are those of the space: parameters, derived, fixed and external values.
    """
    reader = _Reader(space, mistakes)
    try:
        entries = list(_entries(given, where))
    except InputError as error:
        mistakes.append(str(error))
        return []
    if not entries:
        mistakes.append(f"{where}: holds no entry; must hold at least one")
    before = len(mistakes)
    rows = [reader.row(place, entry, f"{_stem(given)}{index}") for index, (place, entry) in enumerate(entries, start=1)]
    seen: set[str] = set()
    for row in rows:
        if row.name in seen:
            mistakes.append(f"{row.place}: duplicate name {row.name!r}; must be given once")
        seen.add(row.name)
    return rows if len(mistakes) == before else []


class _Reader:
    def __init__(self, space: Space, mistakes: list[str]) -> None:
        self._space, self._mistakes = space, mistakes
        self._names = {*space.parameters, *space.derived, *space.fixed, *space.external}
        self._unknown: set[str] = set()

    def row(self, place: str, entry: Any, default_name: str) -> Row:
        """One entry; what is wrong with it goes to the mistakes."""
        if not isinstance(entry, Mapping):
            self._mistakes.append(f"{place}: got {entry!r}; must be a mapping from parameters to values")
            return Row(place, default_name, {})
        nested = entry.get("params")
        own = [name for name in OWN if name not in self._names]  # a space may have a parameter of such a name
        flat = nested if isinstance(nested, Mapping) else {key: item for key, item in entry.items() if key not in own}
        params = {str(name): self._value(place, str(name), item) for name, item in flat.items() if item is not None}
        if not params:
            self._mistakes.append(f"{place}: holds no value; must set at least one parameter")
        name, note = str(entry.get("name") or default_name), str(entry.get("note") or "")
        seed = self._seed(place, entry.get(SEED)) if SEED in own else None
        return Row(place, name, params, self._result(place, entry.get("value")), note, seed)

    def _seed(self, place: str, value: Any) -> int | None:
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            return value
        self._mistakes.append(f"{place}: seed: got {value!r}; must be a whole number from 0, or left out")
        return None

    def _value(self, place: str, name: str, value: Any) -> Any:
        if name not in self._names:
            if name not in self._unknown:  # a column is wrong once, not in every row
                self._mistakes.append(f"{place}: unknown parameter {name!r}; {nearest(name, self._names)}")
            self._unknown.add(name)
            return value
        if isinstance(value, float) and not math.isfinite(value):
            self._mistakes.append(f"{place}: {name}: got {value}; must be finite")
        elif name in self._space.parameters:
            return self._typed(place, name, value, self._space.parameters[name].domain)
        return value

    def _typed(self, place: str, name: str, value: Any, domain: Domain) -> Any:
        if isinstance(domain, Categorical):
            as_written = next((choice for choice in domain.choices if str(choice) == str(value)), value)
            return whole(as_written, domain)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._mistakes.append(f"{place}: {name}: got {value!r}; must be a number ({domain.describe()})")
        return whole(value, domain)

    def _result(self, place: str, value: Any) -> float | None:
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)):
            return value
        self._mistakes.append(f"{place}: value: got {value!r}; must be a finite number, or left out")
        return None


def _stem(given: str | Sequence[Mapping[str, Any]]) -> str:
    return f"{Path(given).stem}-" if isinstance(given, str) else ""


def _entries(given: str | Sequence[Mapping[str, Any]], where: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(given, str):
        yield from ((f"{where}.{index}", documents.with_numbers(entry)) for index, entry in enumerate(given))
        return
    path = Path(given).expanduser()
    if not path.is_file():
        raise InputError(f"{where}: file {given!r} does not exist; must be a CSV, YAML or JSON file of configurations")
    if path.suffix.lower() == ".csv":
        yield from _csv(path)
        return
    document = _document(path, where)
    if not isinstance(document, list):
        raise InputError(f"{path}: holds {type(document).__name__}; must be a list of configurations")
    for index, entry in enumerate(document, start=1):
        yield f"{path}: entry {index}", documents.with_numbers(entry) if isinstance(entry, Mapping) else entry


def _document(path: Path, where: str) -> Any:
    if path.suffix.lower() in (".yaml", ".yml"):
        return documents.read(path)
    if path.suffix.lower() != ".json":
        raise InputError(f"{where}: got {str(path)!r}; must end in .csv, .yaml or .json")
    try:
        return json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: is not JSON ({error})") from None


def _csv(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            columns = rows.fieldnames or ()
            exported = any(column.startswith("params.") for column in columns)
            for row in rows:
                place = f"{path}:{rows.line_num}"
                if None in row or None in row.values():
                    raise InputError(f"{place}: has another number of cells than the header ({len(columns)})")
                if not exported:
                    yield place, {name.strip(): _cell(text) for name, text in row.items()}
                elif row.get("state") == "complete":
                    yield place, _of_a_study(row)
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text; must be a CSV file") from None
    except csv.Error as error:
        raise InputError(f"{path}: is not CSV ({error})") from None


def _of_a_study(row: Mapping[str, str]) -> dict[str, Any]:
    params = {name.removeprefix("params."): _cell(text) for name, text in row.items() if name.startswith("params.")}
    return {"name": f"trial-{row.get('number', '')}", "value": _cell(row.get("value", "")), "params": params}


def _cell(text: str) -> Any:
    """A cell as a number, a truth value, nothing or a text."""
    text = text.strip()
    if text.lower() in ("", "true", "false"):
        return {"": None, "true": True, "false": False}[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
