"""`tune-lora rate --learn`: what raters like, written into the file of the next study."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tune_lora import atomic, exports, places, shell, sources, spec, taste
from tune_lora.errors import InputError

DRAWS = "diffusion_lora"
SUFFIX = "-liked"


def write(results: Path, target: Path, weight: float) -> list[str]:
    """Writes what the raters of a study like into a study file: an existing one keeps everything else, comments too; a
    new one is the study again under another name. Returns what to tell, one line each.

    Raises:
        InputError: nothing can be learnt (`taste.learn`), the study draws no pictures, or the file is no study.
    """
    found, record, folder = sources.finished_study(results)
    _require_pictures(found.trainer, str(folder))
    learnt = taste.learn(record)
    wanted = {"objective.weights.preference": weight, "objective.preference": taste.section(learnt)}
    if target.exists():
        _add(target, wanted)
    else:
        _make(target, found.as_mapping(), wanted, learnt)
    return [*taste.told(learnt), f"{target}\n{shell.next_of(target)}"]


def _make(target: Path, document: dict[str, Any], wanted: Mapping[str, Any], learnt: taste.Taste) -> None:
    document["name"] = f"{document['name'][: 100 - len(SUFFIX)]}{SUFFIX}"
    for place, value in wanted.items():
        places.put(document, place, value)
    spec.from_mapping(document, str(target))
    exports.write_config(target, document, f"the study {learnt.study} again, scored also by what was liked in it")


def _add(target: Path, wanted: Mapping[str, Any]) -> None:
    _require_pictures(spec.load(target).trainer, str(target))  # also says what else is wrong with it
    editor = YAML()  # keeps comments; makes no objects
    editor.preserve_quotes, editor.width = True, 120
    document = editor.load(target.read_text("utf-8"))
    for place, value in wanted.items():
        places.put(document, place, value)
    written = io.StringIO()
    editor.dump(document, written)
    atomic.write_text(target, written.getvalue())
    spec.load(target)


def _require_pictures(trainer: str, source: str) -> None:
    if trainer != DRAWS:
        raise InputError(f"{source}: trains with {trainer}; must be a study of {DRAWS}, whose pictures are measured")
