"""Where labelled examples are and what is what in them: plain values, nothing read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LABEL = "label"
FILE_NAME = "file_name"


@dataclass(frozen=True)
class DataSource:
    """Labelled examples.

    `path` is a folder of images (one subfolder a class, or a ``metadata.jsonl`` or ``.csv`` that lists ``file_name``
    and the label), such a listing itself, or a table. `kind` ``auto`` is: a listing or folder of images ``image``, with
    a named `text` column ``image_text``; a table with one ``text``, any other ``tabular``. `features` are the numeric
    columns of a table. `group` is a column for group-robust training, and with `grouped_folds` for folds that keep
    groups together. Validation rows are those of `validation`, else a stratified share.
    """

    path: Path
    kind: Literal["auto", "image", "image_text", "text", "tabular"] = "auto"
    label: str = LABEL
    text: str | None = None
    features: tuple[str, ...] = ("auto",)
    group: str | None = None
    grouped_folds: bool = False
    validation: Path | None = None
    held_out_share: float = 0.2
    on_bad: Literal["error", "drop"] = "error"
