"""What was carried into a study, written on it: whoever reads the study sees it without the sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import optuna

from tune_lora import store
from tune_lora.knowledge._points import Knowledge, Source

CHUNK = 50
"""Points in one attribute: some databases hold 64 KB in one."""


def write(study: optuna.Study, knowledge: Knowledge) -> None:
    """Writes the sources and their points; what stands there already costs nothing."""
    wanted: dict[str, Any] = {}
    if knowledge.sources or store.KNOWLEDGE in study.user_attrs:
        wanted[store.KNOWLEDGE] = [source.summary() for source in knowledge.sources]
    points = [point for source in knowledge.sources for point in _points(source)]
    for index, start in enumerate(range(0, len(points), CHUNK)):
        wanted[f"{store.CARRIED_PREFIX}{index}"] = points[start : start + CHUNK]
    stored = study.user_attrs
    for key in stored:  # a source that has become shorter leaves nothing behind
        if key.startswith(store.CARRIED_PREFIX) and key not in wanted:
            wanted[key] = []
    for key, value in wanted.items():
        if stored.get(key) != value:
            study.set_user_attr(key, value)


def let_go(study: optuna.Study) -> Mapping[str, str]:
    """Why each source is no longer told, by its label."""
    found: Mapping[str, str] = study.user_attrs.get(store.LET_GO, {})
    return found


def _points(source: Source) -> Iterator[dict[str, Any]]:
    for point in source.points:
        yield {
            "source": source.label,
            "provenance": point.provenance,
            "params": dict(point.params),
            "value": point.value,
            "notes": list(point.notes),
        }
    for item in source.left_out:
        yield {
            "source": source.label,
            "provenance": item.provenance,
            "params": {},
            "value": None,
            "notes": [f"left out: {item.reason} ({item.detail})"],
        }
