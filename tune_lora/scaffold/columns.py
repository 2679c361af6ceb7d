"""Which columns a listing or a table has, and what they may be."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from trainables.classification.listing import columns_of
from trainables.classification.source import FILE_NAME
from tune_lora.errors import InputError, nearest

LISTING = "metadata.jsonl"
TABLES = (".csv", ".tsv", ".parquet", ".pq")
LABELS = ("label", "class", "category", "species", "target", "y")
"""What a column of classes is called."""
_DIALOGUES = ({"messages"}, {"conversations"}, {"prompt", "completion"}, {"instruction", "output"})


def columns(path: Path) -> list[str]:
    """Names of the columns; none where it is no file with columns.

    Raises:
        InputError: it cannot be read.
    """
    if not path.is_file() or path.suffix.lower() not in (*TABLES, ".jsonl"):
        return []
    return list(columns_of(path)[0])


def listing_in(path: Path) -> Path | None:
    """The file that lists a folder's images, or the file itself where it lists images."""
    if path.is_dir():
        tables = sorted(path.glob("*.csv"))
        candidates = [path / LISTING, *(tables if len(tables) == 1 else ())]
    else:
        candidates = [path]
    return next((one for one in candidates if FILE_NAME in columns(one)), None)


def label_among(names: Iterable[str], target: str | None) -> str | None:
    """The column of classes: `target` where it is there, else one that is called like one."""
    known = list(names)
    if target is not None:
        return target if target in known else None
    return next((name for label in LABELS for name in known if name.lower() == label), None)


def must_have(path: Path, names: Iterable[str], target: str | None) -> str:
    """The column to be predicted.

    Raises:
        InputError: it is not said and not plain, or not there.
    """
    known = list(names)
    found = label_among(known, target)
    if found is not None:
        return found
    if target is not None:
        raise InputError(f"--target: got {target!r}, which {path} does not have; {nearest(target, known)}")
    raise InputError(f"{path}: which column is to be predicted? --target must be one of {', '.join(known)}")


def are_examples_of_text(names: Iterable[str]) -> bool:
    """Whether columns are those of a language model's examples."""
    known = {name.lower() for name in names}
    return known == {"text"} or any(dialogue <= known for dialogue in _DIALOGUES)
