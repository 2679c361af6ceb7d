"""Commented study files for what people have: images with captions, labelled images, tables, examples of text.

To add a kind of study: its file in this folder with a `recognise` and a `write`, and an entry in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from tune_lora import atomic
from tune_lora.errors import InputError
from tune_lora.scaffold import classifier, llm, lora, transfer
from tune_lora.scaffold.asked import Asked, study_name

__all__ = ["KINDS", "Asked", "recognised", "settled", "study_name", "trials", "write_study_file"]

KINDS: Mapping[str, ModuleType] = {"lora": lora, "classifier": classifier, "llm": llm, "transfer": transfer}
"""By the task that it is for. Each has ``recognise(asked) -> str``, what was found in a few words and empty for
nothing, and ``write(asked, file) -> str``, the text of the study file."""

TRIALS, USUAL_TRIALS = 20, {"transfer": 50}
"""Of a study where nothing was said; by task where it is another number."""


def recognised(asked: Asked) -> dict[str, str]:
    """The tasks that a path fits, each with what was found there."""
    found = {task: kind.recognise(asked) for task, kind in KINDS.items()}
    return {task: words for task, words in found.items() if words}


def write_study_file(asked: Asked, *, task: str | None = None, output: Path | None = None) -> Path:
    """Writes ``study.yaml`` into the folder that was asked about (beside a file), or to `output`; returns its path.

    `task` is one of `KINDS`; None: the one that fits.

    Raises:
        InputError: nothing is there, it fits no task or several, it is not usable, or the study file exists.
    """
    file = output or (asked.path if asked.path.is_dir() else asked.path.parent) / "study.yaml"
    chosen = settled(asked, task)
    text = KINDS[chosen].write(replace(asked, n_trials=trials(asked, chosen)), file)
    if file.exists():
        raise InputError(f"{file} exists and is kept; remove it, or name another file with --output")
    if not file.parent.is_dir():
        raise InputError(f"{file.parent} does not exist; must be a folder to write {file.name} into")
    return atomic.write_text(file, text)


def told(asked: Asked, task: str) -> list[str]:
    """What was taken for what where the path itself does not say, in sentences for the person who asked."""
    return classifier.told(asked) if task == "classifier" else []


def settled(asked: Asked, task: str | None = None) -> str:
    """The task of a study: the one that was said, else the only one that the path fits.

    Raises:
        InputError: there is no such task, nothing is there, or it fits none or several.
    """
    if task is not None and task not in KINDS:
        raise InputError(f"--task: got {task!r}; must be one of {', '.join(KINDS)}")
    if task is None and asked.stage1 is not None:
        return "transfer"
    return task or _the_one(asked)


def trials(asked: Asked, task: str) -> int:
    """How many trials a study has: as was said, else what is usual for its task."""
    return USUAL_TRIALS.get(task, TRIALS) if asked.n_trials is None else asked.n_trials


def _the_one(asked: Asked) -> str:
    if not asked.path.exists():
        raise InputError(f"{asked.path} does not exist; must be a folder of images, a table, or a file of examples")
    found = recognised(asked)
    if len(found) > 1:
        several = "; ".join(f"{task} ({words})" for task, words in found.items())
        raise InputError(f"{asked.path} fits {several}; must be said with --task")
    if not found and asked.path.is_dir():
        return "lora"  # whose own mistakes say what a folder of images lacks
    if not found:
        raise InputError(
            f"{asked.path}: nothing known is in it; must be a folder of images, a table (.csv, .tsv, .parquet) with "
            "--target COLUMN, or examples of text (.jsonl, .json, .txt)"
        )
    return next(iter(found))
