"""The files a study leaves behind, other than pictures and the report.

Every file is written whole or not at all, and every file is there even when no trial completed.
"""

from __future__ import annotations

import csv
import datetime as dt
import enum
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tune_lora import atomic, baseline, store, verify_words, wording
from tune_lora.records import pareto
from tune_lora.store import StudyRecord, TrialRecord

TOP = 20
"""Rows of ``top_20_trials.csv``."""


def write_all(study: optuna.Study, folder: Path, spec_mapping: Mapping[str, Any]) -> list[Path]:
    """Writes every export of a study into its folder; returns the paths.

    Args:
        study: the open Optuna study.
        folder: the study's results folder; made where it is missing.
        spec_mapping: the resolved study file.
    """
    record = store.read(study)
    everything = trial_table(record, record.trials)
    return [
        write_study_file(spec_mapping, folder),
        write_best_params(folder / "best_params.json", record),
        write_best_config(folder / "best_config.yaml", record),
        write_csv(folder / "all_trials.csv", everything),
        write_parquet(folder / "all_trials.parquet", everything),
        write_csv(folder / f"top_{TOP}_trials.csv", trial_table(record, record.ranked()[:TOP])),
    ]


def write_study_file(spec_mapping: Mapping[str, Any], folder: Path) -> Path:
    """Writes the resolved study file, ``study.yaml``; ``tune-lora run`` reads it back."""
    return atomic.write_text(folder / "study.yaml", _yaml(spec_mapping))


def write_best_params(path: Path, record: StudyRecord) -> Path:
    """Writes the best trial's sampled values. Without a completed trial the value and the number are null.

    With several objectives the best is the member of the Pareto front that is recommended, and the whole front stands
    below it.
    """
    best = record.winner
    content: dict[str, Any] = {
        "best_value": record.winner_value,
        "best_params": record.tried(best) if best else {},
        "n_trials": sum(trial.state in ("complete", "pruned", "failed") for trial in record.trials),
        "best_trial_number": best.number if best else None,
    }
    if sure := verify_words.note(record):
        content["verification"] = {"is_verified": record.is_verified, "searched_value": best.value if best else None}
        content["verification"]["in_words"] = sure
    if record.has_several:
        content |= {
            "best_values": _by_objective(record, best) if best else {},
            "objectives": {objective.name: objective.direction for objective in record.objectives},
            "trade": wording.trade(record),
            "front": [
                {"trial_number": one.number, "values": _by_objective(record, one), "params": record.tried(one)}
                for one in pareto(record)
            ],
        }
    return atomic.write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_best_config(path: Path, record: StudyRecord) -> Path:
    """Writes the best trial's whole resolved configuration, with its origin as comments."""
    best = record.winner
    if best is None:
        heading = f"study {record.name}: no trial completed, so there is no best configuration"
        return atomic.write_text(path, _comment(heading) + "{}\n")
    values = best.values if record.winner_value is None else [record.winner_value]
    names = [objective.name for objective in record.objectives] or [record.score_name]
    told = ", ".join(f"{name} {value:.6g}" for name, value in zip(names, values, strict=True))
    heading = f"study {record.name}: trial {best.number}, {told}"
    notes = wording.trade(record)
    notes += ["uncalibrated: the score does not compare with other studies"] if record.is_uncalibrated else []
    if sure := verify_words.note(record):
        notes.append(sure)
    if record.overtaken_by is not None:
        notes += wording.caveats(record)[-1:]
    elif not record.is_verified:
        notes.append("not verified with other seeds and prompts")
    return atomic.write_text(path, _comment(heading, *notes) + _yaml(best.config))


def write_config(path: Path, config: Mapping[str, Any], heading: str) -> Path:
    """Writes a configuration as YAML, with where it is from as a comment."""
    return atomic.write_text(path, _comment(heading) + _yaml(config))


@dataclass(frozen=True)
class Table:
    """Trials as rows under named columns; None where a trial has no such value."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def trial_table(record: StudyRecord, trials: Iterable[TrialRecord]) -> Table:
    """One row a trial, in the order given.

    Columns: number, state, cause, value (with ``improvement_percent`` against the study's own baseline trial, where it
    has one; with several objectives ``values.*``, and ``pareto``, whether a complete trial
    is on the front), provenance, ``params.*`` (what was tried under the sampled names), ``config.*`` (derived and fixed
    values), ``metrics.*`` of the last report, seconds (of a device: its own share where it trained in a pack), pack
    (how many seats its base had; 1: it trained alone), started, finished, message, notes (on what was carried over).
    They are the whole study's columns, whichever trials are asked for.
    """
    params = record.parameter_names
    config = _names((trial.config for trial in record.trials), without=params)
    metrics = _names(trial.metrics for trial in record.trials)
    columns = (
        *("number", "state", "cause"),
        *_value_columns(record),
        "provenance",
        *(f"params.{name}" for name in params),
        *(f"config.{name}" for name in config),
        *(f"metrics.{name}" for name in metrics),
        *("seconds", "pack", "started", "finished", "message", "notes"),
    )
    leading = {trial.number for trial in pareto(record)}
    gains = baseline.improvements(record) if baseline.baseline_trial(record) else None
    rows = (
        (
            *(trial.number, trial.state, trial.cause.value if trial.cause else None),
            *_value_cells(record, trial, leading, gains),
            trial.provenance,
            *_cells(record.tried(trial), params),
            *_cells(trial.config, config),
            *_cells(trial.metrics, metrics),
            *(trial.seconds, trial.pack, trial.started, trial.finished, trial.message or None),
            "; ".join(trial.notes) or None,
        )
        for trial in trials
    )
    return Table(columns, tuple(rows))


def _value_columns(record: StudyRecord) -> list[str]:
    if record.has_several:
        return [*(f"values.{one.name}" for one in record.objectives), "pareto"]
    return ["value", store.IMPROVEMENT] if baseline.baseline_trial(record) else ["value"]


def _value_cells(
    record: StudyRecord, trial: TrialRecord, leading: Collection[int], gains: Mapping[int, float] | None
) -> list[Any]:
    if not record.has_several:
        return [trial.value, *([gains.get(trial.number)] if gains is not None else [])]
    values = trial.values or (None,) * len(record.objectives)
    return [*values, trial.number in leading if trial.values else None]


def _by_objective(record: StudyRecord, trial: TrialRecord) -> dict[str, float]:
    return {one.name: value for one, value in zip(record.objectives, trial.values, strict=True)}


def write_csv(path: Path, table: Table) -> Path:
    """Writes a table as CSV: UTF-8, a header line, empty cells for absent values, ISO 8601 times."""
    with atomic.replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows([_text(cell) for cell in row] for row in table.rows)
    return path


def write_parquet(path: Path, table: Table) -> Path:
    """Writes the same table with types: whole numbers, floats, truth values, times and text."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.columns)
    arrays = [_typed(name, cells) for name, cells in zip(table.columns, columns, strict=True)]
    with atomic.replacing(path) as temporary:
        pq.write_table(pa.table(arrays, names=list(table.columns)), temporary)
    return path


_FIXED_TYPES: Mapping[str, pa.DataType] = {
    "number": pa.int64(),
    "value": pa.float64(),
    store.IMPROVEMENT: pa.float64(),
    "pareto": pa.bool_(),
    "seconds": pa.float64(),
    "pack": pa.int64(),
    "started": pa.timestamp("us"),
    "finished": pa.timestamp("us"),
}
_TYPES: Mapping[frozenset[type], pa.DataType] = {
    frozenset({int}): pa.int64(),
    frozenset({float}): pa.float64(),
    frozenset({int, float}): pa.float64(),
    frozenset({bool}): pa.bool_(),
}


def _typed(name: str, cells: Sequence[Any]) -> pa.Array:
    if name in _FIXED_TYPES:
        return pa.array(cells, type=_FIXED_TYPES[name])
    if name.startswith(("metrics.", "values.")):
        return pa.array(cells, type=pa.float64())
    kind = _TYPES.get(frozenset(type(cell) for cell in cells if cell is not None))
    if kind is None:  # text, nothing at all, or choices of several types
        return pa.array([None if cell is None else _text(cell) for cell in cells], type=pa.string())
    return pa.array(cells, type=kind)


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, dt.datetime):
        return cell.isoformat()
    return str(cell)


def _cells(values: Mapping[str, Any], names: Iterable[str]) -> list[Any]:
    found = [values.get(name) for name in names]
    return [json.dumps(value) if isinstance(value, list | tuple | Mapping) else value for value in found]


def _names(mappings: Iterable[Mapping[str, Any]], without: Iterable[str] = ()) -> tuple[str, ...]:
    names = dict.fromkeys(name for mapping in mappings for name in mapping)
    return tuple(name for name in names if name not in set(without))


def _comment(*lines: str) -> str:
    return "".join(f"# {' '.join(line.split())}\n" for line in lines)


def _yaml(mapping: Mapping[str, Any]) -> str:
    return yaml.safe_dump(_plain(mapping), sort_keys=False, allow_unicode=True, width=120)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    return str(value) if isinstance(value, PurePath) else value
