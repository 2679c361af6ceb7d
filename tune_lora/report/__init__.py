"""One HTML file that tells a study: it opens without a network, in light and dark, and everything in it is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from tune_lora import atomic, baseline, wording
from tune_lora.records import pareto
from tune_lora.report._past import past_trials, reasons
from tune_lora.report._pictures import base_beside_best, embedded, figures, top_galleries
from tune_lora.store import StudyRecord, TrialRecord

__all__ = ["embedded", "render", "write"]

TOP_WITH_IMAGES = 5
"""Trials whose images are embedded: a report stays a few megabytes however long the study."""


def write(record: StudyRecord, folder: Path) -> Path:
    """Writes ``report.html`` into a results folder, with the pictures that lie in it; returns its path."""
    return atomic.write_text(folder / "report.html", render(record, folder))


def render(record: StudyRecord, folder: Path) -> str:
    """The report as HTML.

    Args:
        record: the study.
        folder: the study's results folder. Its ``figures/*.png`` and the trials' images are embedded; what is missing
            there is said in its place.
    """
    environment = Environment(
        loader=PackageLoader("tune_lora.report", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(_content(record, folder))


def _content(record: StudyRecord, folder: Path) -> Mapping[str, Any]:
    best = record.best
    shared, gains = wording.shared_settings(record), baseline.improvements(record)
    leading = {trial.number for trial in pareto(record)}
    return {
        "record": record,
        "best": best,
        "best_settings": wording.settings(best.config) if best else {},
        "sampled": set(record.parameter_names),
        "facts": _facts(record),
        "caveats": wording.caveats(record),
        "against_baseline": wording.against_baseline(record),
        "beside": base_beside_best(record, folder),
        "galleries": top_galleries(record, folder, TOP_WITH_IMAGES),
        "figures": figures(folder / "figures"),
        "trials": [_row(record, trial, best, shared, gains) for trial in record.trials],
        "front": [_row(record, one, best, shared, gains) for one in record.ranked() if one.number in leading],
        "names": [one.name for one in record.objectives] or [record.score_name],
        "changes": wording.against_baseline_trial(record),
        "measures": wording.measures_against_baseline(record),
        "stages": wording.stages(record),
        "ends": _ends(record, best, shared, gains),
        "goals": [f"{one.name}, {one.direction}d" for one in record.objectives],
        "trade": wording.trade(record),
        "result": wording.result(record, best) if best else "",
        "shared": shared,
        "failures": wording.failures_by_cause(record),
        "rejections": _rejections(record),
        "past": past_trials(record),
        "knowledge": wording.knowledge(record),
        "commands": wording.next_commands(record, str(folder)),
        "uncalibrated": wording.UNCALIBRATED if record.is_uncalibrated else "",
        "not_verified": wording.NOT_VERIFIED if best is not None and not record.is_verified else "",
        "targets": record.calibration.get("targets", {}),
        "number": wording.number,
    }


def _facts(record: StudyRecord) -> list[tuple[str, str]]:
    seconds = sum(trial.seconds for trial in record.trials)
    facts = [
        ("Trials", wording.counts_line(record)),
        ("Goal", wording.goal(record)),
        ("Training time", f"{wording.duration(seconds)} over all trials"),
        ("Why it stopped", record.stop_reason or "it has not stopped, or was interrupted"),
    ]
    told = [text for text in (wording.improvement(record), wording.over_baseline(record, record.best)) if text]
    if told:
        facts.insert(1, ("Best", "; ".join(told)))
    facts += [("Data", str(note)) for note in record.calibration.get("data", ())]
    return facts


def _row(
    record: StudyRecord,
    trial: TrialRecord,
    best: TrialRecord | None,
    shared: Mapping[str, str],
    gains: Mapping[int, float],
) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "why": ": ".join(part for part in (wording.cause(trial), trial.message) if part),
        "values": _values(record, trial),
        "gain": wording.percent(gains.get(trial.number)),
        "budget": trial.last_budget,
        "seconds": wording.duration(trial.seconds),
        "origin": "; ".join([trial.provenance, *trial.notes]),
        "settings": {name: text for name, text in wording.settings(trial.config).items() if name not in shared},
        "metrics": {name: wording.number(value) for name, value in trial.metrics.items()},
        "is_best": best is not None and trial.number == best.number,
    }


def _ends(
    record: StudyRecord, best: TrialRecord | None, shared: Mapping[str, str], gains: Mapping[int, float]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """The best and the worst trials beside the study's own baseline; nothing where it has none."""
    if baseline.baseline_trial(record) is None:
        return []
    ends = {"The best": baseline.best(record), "The worst": baseline.worst(record)}
    return [
        (f"{name} {len(trials)}", [_row(record, trial, best, shared, gains) for trial in trials])
        for name, trials in ends.items()
        if trials
    ]


def _values(record: StudyRecord, trial: TrialRecord) -> list[str]:
    if not record.has_several:
        return [wording.number(trial.value)]
    return [wording.number(value) for value in trial.values or (None,) * len(record.objectives)]


def _rejections(record: StudyRecord) -> list[tuple[str, int, str]]:
    why = reasons(record)
    return [(rule, count, why.get(rule, "")) for rule, count in wording.rejections(record).items()]
