"""One HTML file that tells a study: it opens without a network, in light and dark, and everything in it is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from tune_lora import analysis, atomic, baseline, shares, verify_words, wording
from tune_lora.records import pareto
from tune_lora.report import _words
from tune_lora.report._data import as_json, data
from tune_lora.report._page import programs
from tune_lora.report._past import past_trials, reasons
from tune_lora.report._pictures import base_beside_best, figure, figures, top_galleries
from tune_lora.store import StudyRecord, TrialRecord

__all__ = ["figure", "render", "write"]

TOP_WITH_IMAGES = 5
"""Trials whose images are embedded: a report stays a few megabytes however long the study."""


def write(record: StudyRecord, folder: Path) -> Path:
    """Writes ``report.html`` into a results folder, with the pictures that lie in it; returns its path."""
    return atomic.write_text(folder / "report.html", render(record, folder))


def render(record: StudyRecord, folder: Path) -> str:
    """The report as HTML: what it says is in it as text, and its programs draw figures and the table of trials from the
    same data; without them it shows a plain table and the pictures of `tune_lora.figures`.

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
    best = record.winner
    shared, gains = wording.shared_settings(record), baseline.improvements(record)
    found = _words.findings(record)
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
        "result": _result(record),
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
        "findings": [(analysis.KIND_WORDS[one.kind], one, tuple(one.advice_parts(str(folder)))) for one in found],
        "success": _words.success(record),
        "again": _words.again(record, str(folder)),
        "liked": _words.liked(record),
        "json": as_json(data(record, folder, found)),
        "programs": programs(),
    }


def _result(record: StudyRecord) -> str:
    """What the winner is worth, as it was measured last; with several objectives its value in each."""
    winner = record.winner
    if winner is None or record.has_several:
        return "" if winner is None else wording.result(record, winner)
    return wording.number(record.winner_value)


def _facts(record: StudyRecord) -> list[tuple[str, str]]:
    seconds = sum(trial.seconds for trial in record.trials)
    facts = [
        ("Trials", wording.counts_line(record)),
        ("Goal", wording.goal(record)),
        (shares.time_name(record).capitalize(), f"{wording.duration(seconds)} over all trials"),
        ("Why it stopped", record.stop_reason or "it has not stopped, or was interrupted"),
    ]
    told = [text for text in (wording.improvement(record), wording.over_baseline(record, record.winner)) if text]
    if told:
        facts.insert(1, ("Best", "; ".join(told)))
    facts += [("Verified", sure)] if (sure := verify_words.note(record)) else []
    facts += [("Times", share)] if (share := shares.note(record).removeprefix("times are ")) else []
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
        "values": wording.values(record, trial),
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


def _rejections(record: StudyRecord) -> list[tuple[str, int, str]]:
    why = reasons(record)
    return [(rule, count, why.get(rule, "")) for rule, count in wording.rejections(record).items()]
