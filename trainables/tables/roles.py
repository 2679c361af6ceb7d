"""Which columns are what: mistakes in a source before any row is looked at, and what `auto` stands for."""

from __future__ import annotations

from collections import Counter

from trainables.tables.cells import is_empty, number
from trainables.tables.files import Cells
from trainables.tables.source import AUTO, TableSource
from tune_lora.errors import InputError, nearest


def role_mistakes(source: TableSource) -> list[str]:
    """Columns that are two things at once, and settings that contradict each other, one line each."""
    told = [mistake for column in source.smiles if (mistake := column.mistake())]
    roles = [("features", name) for name in source.features] + [("smiles", one.column) for one in source.smiles]
    roles += [("target", source.target)] if source.target is not None else []
    for name, count in Counter(name for _, name in roles).items():
        if count > 1:
            said = " and ".join(dict.fromkeys(role for role, other in roles if other == name))
            told.append(f"{said}: got column {name!r} more than once; a column must be one thing")
    if source.target_kind == "number":  # classes may be groups, too: the worst group is then the worst class
        others = [("group", source.group), *(("key", name) for name in source.key)]
        told += [
            f"target and {role}: got column {name!r} for both; a column must be one thing"
            for role, name in others
            if name is not None and name == source.target
        ]
    molecules = Counter(name for one in source.smiles for name in one.molecules)
    told += [f"smiles: two molecules are named {name!r}; names must differ" for name, n in molecules.items() if n > 1]
    if AUTO in source.features and len(source.features) > 1:
        told.append(f"features: got {list(source.features)}; must be {AUTO!r} alone or names of columns")
    return told


def column_mistakes(source: TableSource, cells: Cells) -> list[str]:
    """Columns that do not exist, one line each."""
    wanted = [("features", name) for name in source.features if name != AUTO]
    wanted += [("target", source.target)] if source.target is not None else []
    wanted += [("group", source.group)] if source.group is not None else []
    wanted += [("key", name) for name in source.key] + [("smiles", one.column) for one in source.smiles]
    return [absent(cells, role, name) for role, name in wanted if name not in cells.columns]


def absent(cells: Cells, role: str, name: str) -> str:
    """What to say of a column that a file does not have."""
    return f"{cells.path}: {role}: got {name!r}; must be one of its columns: {nearest(name, cells.columns)}"


def number_columns(source: TableSource, cells: Cells) -> tuple[list[str], list[str]]:
    """The columns of numbers that are features, and a note on those that `auto` leaves out.

    `auto` takes a column for one of numbers when more than half of its filled cells are: the others are then listed as
    mistakes, instead of a whole column being left out for a typing error.

    Raises:
        InputError: there are no features at all.
    """
    if source.features != (AUTO,):
        names, left_out = list(source.features), []
    else:
        taken = {source.target, source.group, *source.key, *(one.column for one in source.smiles)}
        free = [name for name in cells.columns if name not in taken]
        names = [name for name in free if name and _is_of_numbers(cells, name)]
        left_out = [repr(name) for name in free if name not in names]
    if not names and not source.smiles:
        raise InputError(f"{cells.path}: features: got {list(source.features)}; must be one column of numbers at least")
    if not left_out:
        return names, []
    return names, [f"{cells.path}: no features, for they hold text, nothing, or have no name: {', '.join(left_out)}"]


def _is_of_numbers(cells: Cells, name: str) -> bool:
    filled = [cell for cell in cells.columns[name] if not is_empty(cell)]
    return sum(number(cell) is not None for cell in filled) * 2 > len(filled)
