"""What a study of phases leaves behind: ``phases.json``, ``best_config.yaml``, a picture of its gains, a report."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from tune_lora import atomic, exports, wording
from tune_lora.figures import gains_figure
from tune_lora.gains import Gain, Interval, PhaseGain, PhasesRecord
from tune_lora.report import figure
from tune_lora.spec import StudySpec

FIGURE = "gains.png"


def write(record: PhasesRecord, spec: StudySpec) -> Path:
    """Writes everything into the study's folder, each file whole or not at all; returns the report's path."""
    folder = spec.folder
    exports.write_study_file(spec.as_mapping(), folder)
    atomic.write_text(folder / "phases.json", json.dumps(asdict(record), indent=2, default=str) + "\n")
    exports.write_config(folder / "best_config.yaml", record.end, heading(record))
    gains_figure(record, folder / "figures" / FIGURE)
    return atomic.write_text(folder / "report.html", render(record, spec))


def heading(record: PhasesRecord) -> str:
    """Where the study stands, in one line."""
    if not record.phases:
        return f"study {record.name}: no phase is done; this is where the first one starts"
    gained = f", {told(record.whole)} {record.metric} over the start" if record.whole else ""
    return f"study {record.name}: the end of phase {record.phases[-1].name}{gained}"


def line(phase: PhaseGain, record: PhasesRecord) -> str:
    """What became of a phase, in one line."""
    if not phase.adopted:
        outcome = "nothing did better than the start when it was measured again; it ends where it started"
    else:
        which = "the search's best did" if phase.is_best_of_search else "a single change did"
        outcome = f"{which} best when measured again: {told(phase.gained)} {record.metric} over the start"
        outcome += f" ({_in_words(kept(phase))})"
    if phase.whole is None or phase.is_best_of_search:
        return f"phase {phase.name}: {outcome}"
    searched = "; ".join(map(_in_words, phase.changed))
    return f"phase {phase.name}: {outcome}; the search's best ({searched}) had {told(phase.whole)}"


def kept(phase: PhaseGain) -> dict[str, Any]:
    """What a phase changed for good."""
    return {name: value for name, value in phase.end.items() if phase.start.get(name) != value}


def summary(record: PhasesRecord, spec: StudySpec) -> list[str]:
    """What to say when a run has ended, a line each."""
    lines = [line(phase, record) for phase in record.phases]
    if record.whole is not None:
        lines.append(f"from start to end: {told(record.whole)} {record.metric}")
    lines.append(record.stop_reason)
    return [*lines, f"{spec.folder / 'report.html'}", f"{spec.folder / 'best_config.yaml'}"]


def told(interval: Interval | None) -> str:
    """A gain with its interval: ``+0.052 [+0.031, +0.073]``; better is positive."""
    if interval is None:
        return "not measured"
    mean = _signed(interval.mean)
    if interval.low is None or interval.high is None:
        return f"{mean} (one seed)"
    return f"{mean} [{_signed(interval.low)}, {_signed(interval.high)}]"


def _signed(value: float) -> str:
    """With its sign, but for nothing: ``+0.0520``, ``0.0000``."""
    return f"{value:+.4f}" if round(value, 4) else "0.0000"


def render(record: PhasesRecord, spec: StudySpec) -> str:
    """The report as HTML: one file, no network, light and dark."""
    environment = Environment(
        loader=PackageLoader("tune_lora.report", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("phases.html.j2").render(
        record=record,
        planned=len(spec.phases),
        stop_reason=record.stop_reason,
        figure=figure(spec.folder / "figures" / FIGURE, "measured gains"),
        phases=[_phase(phase, record, spec, number) for number, phase in enumerate(record.phases, start=1)],
        levels=[_level(label, values) for label, values in record.values.items()],
        end=wording.settings(record.end),
        whole=told(record.whole),
        confidence=f"{record.confidence:.0%}",
        better="higher" if record.direction == "maximize" else "lower",
    )


def _phase(phase: PhaseGain, record: PhasesRecord, spec: StudySpec, number: int) -> dict[str, Any]:
    singles = [_single(gain) for gain in phase.singles]
    measured = [gain.measured.mean for gain in phase.singles if gain.measured and gain.change in phase.changed]
    return {
        "name": phase.name,
        "line": line(phase, record),
        "gain": told(phase.whole),
        "end": told(phase.gained) if phase.adopted else "",
        "kept": _in_words(kept(phase)),
        "adopted": phase.adopted,
        "searched": wording.number(phase.searched),
        "start": _mean(phase.start_values),
        "best": _mean(phase.best_values),
        "trials": phase.n_trials,
        "singles": singles,
        "sum": f"{sum(measured):+.4f}" if len(measured) > 1 else "",
        "folder": f"{spec.name}-{number}-{phase.name}",
    }


def _in_words(change: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {text}" for name, text in wording.settings(change).items())


def _single(gain: Gain) -> dict[str, Any]:
    names = [
        f"{name} {wording.setting(name, gain.instead_of) if gain.instead_of.get(name) is not None else 'none'} → "
        f"{wording.setting(name, gain.change)}"
        for name in gain.change
    ]
    promised = f"{gain.claimed[0]:+g} to {gain.claimed[1]:+g}" if gain.claimed else ""
    return {"change": ", ".join(names), "gain": told(gain.measured), "promised": promised, "verdict": gain.verdict}


def _level(label: str, values: Mapping[int, float]) -> tuple[str, str, str]:
    each = ", ".join(wording.number(value) for value in values.values())
    return label, _mean(values), each or "no training completed"


def _mean(values: Mapping[int, float]) -> str:
    return wording.number(statistics.fmean(values.values())) if values else "–"
