"""What the page's figures, table and trial pages are drawn from: plain data, written into the page as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tune_lora import analysis, baseline, preferences, rating_view, shares, verify_words, wording
from tune_lora.analysis import Finding
from tune_lora.records import StudyRecord, TrialRecord, pareto
from tune_lora.report._thumbnails import base_thumbnails, thumbnails

DIGITS = 6
"""Of every number: more than anybody sees, and a third of the bytes."""
POINTS = 120
"""Most points of a curve; of more, evenly chosen ones and the last are kept."""


def data(record: StudyRecord, folder: Path, found: Sequence[Finding] = ()) -> dict[str, Any]:
    """The study as the page's program reads it: JSON-able, with nothing in it that JSON does not have.

    Args:
        record: the study.
        folder: its results folder, where pictures lie.
        found: what `tune_lora.analysis.findings` says of it; importances are taken from there.
    """
    winner, base = record.winner, baseline.baseline_trial(record)
    shared, pictures = wording.shared_settings(record), thumbnails(record, folder)
    return {
        "names": [one.name for one in record.objectives] or [record.score_name],
        "minimize": [one.direction == "minimize" for one in record.objectives] or [record.direction == "minimize"],
        "params": list(record.parameter_names),
        "logs": _logarithmic(record),
        "metrics": sorted({name for trial in record.trials for name in trial.metrics}),
        "winner": None if winner is None else winner.number,
        "baseline": None if base is None else base.number,
        "untrained": {"name": record.untrained_name, "values": _numbers(record.baseline)},
        "front": [trial.number for trial in pareto(record)],
        "ranked": [trial.number for trial in record.ranked()],
        "importances": _importances(found),
        "shared": shared,
        "time": shares.time_name(record),
        "baseImages": base_thumbnails(record, folder),
        "trials": _trials(record, shared, pictures),
    }


def as_json(found: Mapping[str, Any]) -> Markup:
    """JSON that can stand inside a script element: no character of it ends or opens anything in HTML."""
    text = json.dumps(found, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _trials(
    record: StudyRecord, shared: Mapping[str, str], pictures: Mapping[int, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    gains, liked = baseline.improvements(record), _liked(record)
    verified = verify_words.marks(record, [trial.number for trial in record.trials])
    return [
        _trial(record, trial, shared)
        | {
            "gain": _number(gains.get(trial.number)),
            "liked": liked.get(trial.number),
            "verified": verified.get(trial.number, ""),
            "images": pictures.get(trial.number, []),
        }
        for trial in record.trials
    ]


def _trial(record: StudyRecord, trial: TrialRecord, shared: Mapping[str, str]) -> dict[str, Any]:
    settings = wording.settings(trial.config)
    return {
        "n": trial.number,
        "state": trial.state,
        "cause": wording.cause(trial),
        "message": trial.message,
        "values": _values(record, trial),
        "budget": trial.last_budget,
        "seconds": _number(trial.seconds),
        "share": shares.of(trial),
        "origin": "; ".join([trial.provenance, *trial.notes]),
        "params": {name: _plain(value) for name, value in record.tried(trial).items()},
        "settings": {name: text for name, text in settings.items() if name not in shared},
        "metrics": _numbers(trial.metrics),
        "curve": _curve(trial),
        "history": _history(trial),
    }


def _values(record: StudyRecord, trial: TrialRecord) -> list[float | None]:
    if not record.has_several:
        return [_number(trial.value)]
    return [_number(value) for value in trial.values or (None,) * len(record.objectives)]


def _curve(trial: TrialRecord) -> dict[str, Any]:
    budgets = _some(sorted(trial.curve))
    return {"x": budgets, "y": [_number(trial.curve[at]) for at in budgets]}


def _history(trial: TrialRecord) -> dict[str, Any]:
    budgets = _some(sorted(trial.history))
    names = sorted({name for at in budgets for name in trial.history[at]})
    told = {name: [_number(trial.history[at].get(name)) for at in budgets] for name in names}
    return {"x": budgets, "y": {name: row for name, row in told.items() if any(one is not None for one in row)}}


def _some(points: Sequence[int]) -> list[int]:
    if len(points) <= POINTS:
        return list(points)
    step = (len(points) - 1) / (POINTS - 1)
    return [points[round(place * step)] for place in range(POINTS)]


def _importances(found: Sequence[Finding]) -> list[dict[str, Any]]:
    none: Mapping[str, Any] = {"shares": {}}
    told = next((one.numbers for one in found if one.key == "importance"), none)
    return [
        {
            "name": name,
            "share": share,
            "low": low,
            "high": high,
            "amongBest": told["among_best"].get(name, 0.0),
            "toldApart": name in told["told_apart"],
        }
        for name, (share, low, high) in told["shares"].items()
    ]


def _liked(record: StudyRecord) -> dict[int, dict[str, Any]]:
    found = preferences.of(record)
    if found is None:
        return {}
    return {one.trial: {"score": _number(one.score), "text": rating_view.liked(one)} for one in found.likings}


def _logarithmic(record: StudyRecord) -> list[str]:
    """Hyperparameters whose range is drawn in logarithms, by the space that the study says it has."""
    domains = analysis.Evidence(record).domains if record.trials else {}
    return [name for name, domain in domains.items() if getattr(domain, "log", False)]


def _numbers(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    return _number(value) if isinstance(value, int | float) else str(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")
