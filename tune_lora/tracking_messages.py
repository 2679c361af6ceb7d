"""What Weights & Biases is told of a trial, as values that JSON can hold. Pure.

A message says what a run must look like, not what has happened: told twice, it changes nothing.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from trainables.protocol import Cause
from trainables.redaction import is_secret, redacted
from tune_lora.records import StudyRecord, TrialRecord
from tune_lora.tracking import Place, run_id

End = Literal["finished", "failed", "crashed"]
"""How a run ends, in Weights & Biases' own words."""
LONGEST_TAG = 64  # characters; the server refuses more
BEST = "best"
INTERRUPTED = "interrupted"
BUDGET = "budget"
"""The metric that is the x axis of all others: epochs, steps or folds, whatever the trainer counts."""


def message(
    study: StudyRecord, trial: TrialRecord, place: Place, *, known: Collection[int] = (), best: bool = False
) -> dict[str, Any]:
    """What a trial's run must look like.

    ``rows`` are ``[budget, metrics, pictures]`` of the reports whose budget is not among `known`; ``end`` is None while
    the trial runs; ``artifact`` is there for the `best` one where it left files. A message that begins no run and ends
    none holds ``trial`` and ``rows`` only.
    """
    end = end_of(trial)
    news = {"trial": trial.number, "rows": [row for row in rows(trial, place.folder) if row[0] not in known]}
    if known and end is None:
        return news
    return {
        **news,
        "id": run_id(place.token, trial.number),
        "name": f"trial-{trial.number:03d}",
        "tags": tags(trial, best=best),
        "config": config(study, trial),
        "end": end,
        "summary": summary(study, trial),
        "artifact": artifact(study, trial, place.folder) if best else None,
    }


def end_of(trial: TrialRecord) -> End | None:
    """How its run ends: a pruned trial has done what was asked of it, a configuration that failed has not, and what the
    infrastructure ended was never judged."""
    if trial.state in ("running", "waiting"):
        return None
    if trial.state != "failed":
        return "finished"
    return "crashed" if trial.cause is Cause.INFRASTRUCTURE else "failed"


def ended_as(place: Place, trial: TrialRecord) -> tuple[str, End | None]:
    """The run of a trial, and how it ends: what tells whether it was tracked to its end."""
    return run_id(place.token, trial.number), end_of(trial)


def tags(trial: TrialRecord, *, best: bool = False) -> list[str]:
    """State, cause, where it came from if not from the sampler, and whether it is the best."""
    said: list[str] = [] if end_of(trial) is None else [trial.state, *([trial.cause.value] if trial.cause else [])]
    said += [] if trial.provenance == "sampler" else [trial.provenance]
    said += [BEST] if best else []
    return list(dict.fromkeys(tag[:LONGEST_TAG] for tag in said))


def config(study: StudyRecord, trial: TrialRecord) -> dict[str, Any]:
    """All resolved values of the trial, and what they came from."""
    told = {"number": trial.number, "provenance": trial.provenance, "seed": trial.seed, "notes": list(trial.notes)}
    return {**trial.config, "trial": told, "study": _about(study)}


def _about(study: StudyRecord) -> dict[str, Any]:
    spec = study.spec
    space, search = spec.get("space"), spec.get("search") or {}
    return {
        "name": study.name,
        "trainer": spec.get("trainable") or spec.get("trainer"),
        "space": space.get("name") if isinstance(space, Mapping) else space,
        "sampler": search.get("sampler"),
        "seed": search.get("seed"),
        "scheduler": (spec.get("scheduler") or {}).get("name"),
        "metric": study.score_name,
        "direction": study.direction,
    }


def rows(trial: TrialRecord, folder: Path) -> list[tuple[int, dict[str, float], dict[str, str]]]:
    """Budget, metrics and pictures (label to path) of each report; the score that schedulers saw is among the
    metrics."""
    found = []
    for budget in sorted({*trial.history, *trial.curve}):
        score = {"score": trial.curve[budget]} if budget in trial.curve else {}
        pictures = {label: str(folder / path) for label, path in trial.images.get(budget, {}).items()}
        found.append((budget, {**trial.history.get(budget, {}), **score}, pictures))
    return found


def summary(study: StudyRecord, trial: TrialRecord) -> dict[str, Any]:
    """How it ended, and what it is worth."""
    found = {
        "state": trial.state,
        "cause": trial.cause.value if trial.cause else None,
        "message": trial.message or None,
        "seconds": trial.seconds or None,
        "pack": trial.pack if trial.pack > 1 else None,
        "value": trial.value,
    }
    several = {f"value/{one.name}": value for one, value in zip(study.objectives, trial.values, strict=False)}
    return {**trial.metrics, **several, **{name: value for name, value in found.items() if value is not None}}


def artifact(study: StudyRecord, trial: TrialRecord, folder: Path) -> dict[str, Any] | None:
    """The winner's files as the study hands them on; None where it left none."""
    files = folder / "trials" / str(trial.number) / "lora"
    if not files.is_dir():
        return None
    metadata = {"trial": trial.number, "value": trial.value, "config": dict(trial.config)}
    return {"name": f"{_plain(study.name)}-winner", "files": str(files.absolute()), "metadata": metadata}


def _plain(name: str) -> str:
    """A name as artifacts may have it."""
    return "".join(character if character.isalnum() or character in "-_." else "-" for character in name)


def harmless(told: Any, secrets: Mapping[str, str] | None = None) -> Any:
    """A message without passwords and tokens, and without numbers that JSON does not have.

    `secrets` are the environment variables that hold some; None looks for them in the environment.
    """
    if secrets is None:
        secrets = {name: value for name, value in os.environ.items() if is_secret(name)}
    if isinstance(told, Mapping):
        return {str(key): harmless(value, secrets) for key, value in told.items()}
    if isinstance(told, list | tuple):
        return [harmless(value, secrets) for value in told]
    if isinstance(told, str):
        return redacted(told, secrets)
    return None if isinstance(told, float) and not math.isfinite(told) else told


def line(told: Mapping[str, Any]) -> bytes:
    """A message as it is sent: one line of JSON."""
    return json.dumps(told, default=str).encode() + b"\n"
