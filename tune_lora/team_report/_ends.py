"""What failed and why, what it cost, what happened on the way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tune_lora import shares, wording
from tune_lora.records import StudyRecord, TrialRecord
from tune_lora.team_report._parts import Axis, Block, Bullets, Heading, Line, Panels, Paragraph, Scatter, Table
from tune_lora.team_report._place import There
from tune_lora.team_report._search import goals

LISTED = 10
"""Trials that are named for each cause, and lines of what happened, at most."""
_MESSAGE = 160


def failures(record: StudyRecord, there: There) -> Iterator[Block]:
    """Failed trials by cause, each with its trials and the newest message; draws that a rule refused."""
    yield Heading("Failures by cause")
    by_cause = defaultdict[str, list[TrialRecord]](list)
    for trial in record.trials:
        if trial.state == "failed":
            by_cause[wording.cause(trial) or "unknown"].append(trial)
    if not by_cause:
        yield Paragraph(("No trial failed.",))
    ordered = sorted(by_cause.items(), key=lambda item: (-len(item[1]), item[0]))
    if ordered:
        yield Bullets(tuple(_failed(cause, trials, len(record.trials), there) for cause, trials in ordered))
    if record.rejections:
        yield Heading("Draws refused by a rule of the space", 2)
        rows = tuple((rule, str(count)) for rule, count in wording.rejections(record).items())
        yield Table(("rule", "draws, none of them trained"), rows, frozenset({1}))


def cost(record: StudyRecord, there: There) -> Iterator[Block]:
    """Time by how trials ended, and what the last of it bought."""
    yield Heading("Cost")
    total = sum(trial.seconds for trial in record.trials)
    if not total:
        yield Paragraph(("No trial has trained yet.",))
        return
    rows = []
    for state in ("complete", "pruned", "failed", "running"):
        mine = [trial for trial in record.trials if trial.state == state and trial.seconds]
        if mine:
            seconds = sum(trial.seconds for trial in mine)
            word = "completed" if state == "complete" else state
            each = wording.duration(seconds / len(mine))
            rows.append((word, str(len(mine)), wording.duration(seconds), f"{seconds / total:.0%}", each))
    rows.append(("in all", str(sum(int(row[1]) for row in rows)), wording.duration(total), "100%", ""))
    spent = shares.time_name(record)
    yield Table(("trials that are", "trials", spent, "share", "a trial"), tuple(rows), frozenset({1, 2, 3, 4}))
    if share := shares.note(record):
        yield Paragraph((f"{share.capitalize()}.",))
    yield from _bought(record, total)
    if any(there.has(trial.number) for trial in record.ranked()):
        across = Axis("summary", "seconds")
        points = [Scatter(f"{name} by {spent} (s)", across, axis) for name, axis, _ in goals(record)]
        yield Panels(there.all_runs(record), tuple(points))


def happened(record: StudyRecord) -> Iterator[Block]:
    """The incidents, the newest ones where they are many."""
    if not record.incidents:
        return
    yield Heading("What happened")
    shown = record.incidents[-LISTED:]
    left = len(record.incidents) - len(shown)
    lines = [(f"{left} earlier ones are in report.html",)] if left else []
    yield Bullets((*lines, *((f"{one.when}: {one.text}",) for one in shown)))


def _bought(record: StudyRecord, total: float) -> Iterator[Block]:
    best = record.best
    if best is None or record.has_several:
        return
    before = sum(trial.seconds for trial in record.trials if trial.number <= best.number)
    rest = total - before
    said = f"The best trial, {best.number}, stood after {wording.duration(before)} of {shares.time_name(record)}"
    said += f"; the {wording.duration(rest)} after it found none better." if rest > 0 else ", and was the last."
    yield Paragraph((said,))


def _failed(cause: str, trials: list[TrialRecord], of: int, there: There) -> Line:
    links = [part for trial in trials[:LISTED] for part in (", ", there.link(trial.number))][1:]
    more = f" and {len(trials) - LISTED} more" if len(trials) > LISTED else ""
    last = next((trial.message for trial in reversed(trials) if trial.message), "")
    said = f". The newest says: {_shortened(last)}" if last else ""
    return (f"{cause}: {len(trials)} of {of} trials ({len(trials) / of:.0%}): trial ", *links, f"{more}{said}")


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE else f"{line[:_MESSAGE]} ..."
