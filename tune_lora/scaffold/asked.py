"""What a study file is asked for, and how its words are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Asked:
    """A folder or file, and what was said about it. None is what is usual for the task."""

    path: Path
    target: str | None = None
    base: str | None = None
    space: str | None = None
    n_trials: int | None = None
    stage1: Path | None = None

    @property
    def name(self) -> str:
        """Of the study."""
        return study_name(self.path if self.path.is_dir() else self.path.with_suffix(""))

    def seen_from(self, file: Path) -> str:
        """The path as the study file says it: relative where it lies beside the file or above it."""
        path, folder = self.path.resolve(), file.parent.resolve()
        return scalar(str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path))


def study_name(path: Path) -> str:
    """A name for a study of this data: the folder's or the file's, with what a name cannot hold replaced."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().name).strip("-._")
    return name[:100] or "study"


def scalar(text: str) -> str:
    """Text as one YAML value, quoted where it must be."""
    return yaml.safe_dump(text, allow_unicode=True, width=10_000).removesuffix("...\n").strip()
