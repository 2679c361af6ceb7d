"""A trial's checkpoints on disk: each written whole or not at all, the two newest kept, each with the digests of its
files. One that was damaged afterwards is found before anything is read from it, and the one before it is used.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = "checkpoint"
KEPT = 2
"""Whole checkpoints that stay: the newest, and the one that is used where that one is damaged."""
MANIFEST = ".manifest.json"
_UNREADABLE = math.inf


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder, the budget it stands at, and the incarnation of the trial that wrote it
    (`trainables.incarnations`)."""

    path: Path
    budget: int
    incarnation: float = 0

    @property
    def order(self) -> tuple[float, int]:
        """What a later incarnation wrote is newer, whatever an earlier one, cut off, still wrote beside it."""
        return self.incarnation, self.budget


def write(
    trial_folder: Path,
    budget: int,
    save: Callable[[Path], None],
    *,
    incarnation: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Path:
    """Writes ``checkpoint/<budget>/`` through `save`, flushed to the disk, and removes what is older than the one
    before it; returns the folder. Where it fails nothing of it stays.

    `check` is called before anything becomes visible to others, and raises where this writer no longer may.
    """
    root = trial_folder / FOLDER
    target, scratch = root / f"{budget:08d}", root / f"{budget:08d}.{incarnation}.part"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        save(scratch)
        _seal(scratch, incarnation)
        check()
        if not _is_of_a_later(target, incarnation):
            _replace(target, scratch)
        _remove_older(root, incarnation)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def newest(trial_folder: Path) -> Path | None:
    """The newest checkpoint of a trial, or None. Its files are not read; `restorable` reads them."""
    found = next((one for one in _newest_first(trial_folder) if one.incarnation != _UNREADABLE), None)
    return found.path if found else None


def restorable(trial_folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is as it was written, and a line for each newer one that is not."""
    damaged: list[str] = []
    for one in _newest_first(trial_folder):
        if (why := damage(one.path)) is None:
            return one, damaged
        damaged.append(f"{one.path.relative_to(trial_folder)} is damaged ({why})")
    return None, damaged


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    try:
        manifest = _manifest(checkpoint)
        int(manifest["incarnation"])
        known = {str(name): (int(size), str(digest)) for name, (size, digest) in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return f"{MANIFEST} cannot be read"
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except OSError as error:
        return f"{MANIFEST}: {error.strerror}"
    for name, (size, digest) in known.items():
        if (why := _difference(checkpoint / name, size, digest)) is not None:
            return f"{name} {why}"
    return None


def note(trial_folder: Path) -> str:
    """What to add to the message of a trial that failed: where it could go on from."""
    found = newest(trial_folder)
    return f"; the last good checkpoint is {found.relative_to(trial_folder)}" if found is not None else ""


def begins(found: Checkpoint | None, unit: str) -> str:
    """Where a trial goes on that found this checkpoint, in words; `unit` is what its budget counts."""
    return "the beginning" if found is None else f"{unit} {found.budget}"


def budget_of(checkpoint: Path) -> int:
    """The budget that a checkpoint folder stands at."""
    return int(checkpoint.name)


# --- one folder ------------------------------------------------------------------------------------------------------


def _seal(folder: Path, incarnation: int) -> None:
    """Flushes all files to the disk and writes down what they are."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        files[path.relative_to(folder).as_posix()] = (path.stat().st_size, _digest(path))
        flush(path)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"incarnation": incarnation, "files": files}))
    flush(manifest)
    for path in [*(path for path in folder.rglob("*") if path.is_dir()), folder]:
        flush(path)


def flush(path: Path) -> None:
    """Brings a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _difference(path: Path, size: int, digest: str) -> str | None:
    try:
        if (found := path.stat().st_size) != size:
            return f"has {found} bytes, had {size}"
        return None if _digest(path) == digest else "has another content"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _manifest(checkpoint: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((checkpoint / MANIFEST).read_text("utf-8"))
    return manifest


# --- all of a trial --------------------------------------------------------------------------------------------------


def _newest_first(trial_folder: Path) -> list[Checkpoint]:
    return sorted(_all(trial_folder / FOLDER), key=lambda one: one.order, reverse=True)


def _all(root: Path) -> Iterator[Checkpoint]:
    if root.is_dir():
        for path in root.iterdir():
            if path.name.isdigit():
                yield Checkpoint(path, int(path.name), _incarnation(path))


def _incarnation(checkpoint: Path) -> float:
    """Who wrote it; what cannot be read comes first, so that it is looked at and said to be damaged."""
    try:
        return int(_manifest(checkpoint)["incarnation"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return _UNREADABLE


def _is_of_a_later(target: Path, incarnation: int) -> bool:
    return target.exists() and incarnation < _incarnation(target) < _UNREADABLE


def _replace(target: Path, scratch: Path) -> None:
    """Puts a checkpoint in its place, where a damaged one or one of an earlier incarnation may stand."""
    old = scratch.with_suffix(".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    scratch.rename(target)
    flush(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _remove_older(root: Path, incarnation: int) -> None:
    """Keeps the newest; what a later incarnation wrote is never touched, should this one have been cut off."""
    ordered = sorted(_all(root), key=lambda one: one.order, reverse=True)
    mine = [one for one in ordered if one.incarnation <= incarnation]
    newest = mine[0].budget if mine else 0
    unreadable = [one for one in ordered if one.incarnation == _UNREADABLE and one.budget < newest]
    for one in [*mine[KEPT:], *unreadable]:
        shutil.rmtree(one.path, ignore_errors=True)
    for path in root.glob("*.*"):
        writer = path.name.split(".")[1]
        if writer.isdecimal() and int(writer) <= incarnation:
            shutil.rmtree(path, ignore_errors=True)
