"""What a team report says, in its order: a study's record as plain values. Pure."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator, Mapping

from trainables.redaction import is_secret, redacted
from tune_lora import analysis, shell, verify_words, wording
from tune_lora.records import StudyRecord
from tune_lora.team_report import _ends, _leaders, _search, _summary
from tune_lora.team_report._parts import Block, Bullets, Code, Contents, Heading, Notes, Page, Paragraph, each_text
from tune_lora.team_report._place import There

NOTES = Notes(
    "Notes of the team",
    "What you write below this line stays when the report is made again; what stands above is replaced.",
)


def page(
    record: StudyRecord, there: There, place: str, now: dt.datetime, secrets: Mapping[str, str] | None = None
) -> Page:
    """The report of a study.

    Args:
        record: the study.
        there: where its runs are.
        place: what commands name the study by, such as ``results/demo``.
        now: when it is made.
        secrets: environment variables whose values must not be in it; None takes those of the environment.
    """
    if secrets is None:
        secrets = {name: value for name, value in os.environ.items() if is_secret(name)}
    found = analysis.findings(record) if record.trials else ()
    made = Page(
        f"Study {record.name}", _description(record, now), tuple(_blocks(record, there, place, found)), NOTES,
    )  # fmt: skip
    return each_text(made, lambda text: redacted(text, secrets))


def _description(record: StudyRecord, now: dt.datetime) -> str:
    sure = verify_words.note(record) if record.is_verified else wording.NOT_VERIFIED if record.best else "no winner yet"
    at = now.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{wording.counts_line(record)}; {sure}; as of {at}"


def _blocks(record: StudyRecord, there: There, place: str, found: tuple[analysis.Finding, ...]) -> Iterator[Block]:
    yield from _summary.recommendation(record, there)
    yield Contents()
    yield from _summary.summary(record)
    yield from _summary.trust(record, there, place)
    yield from _leaders.against(record, there)
    yield from _summary.findings(record, found, place)
    yield from _leaders.top(record, there)
    yield from _search.course(record, there, found)
    yield from _search.importance(found)
    yield from _search.wandb_importance(record, there)
    yield from _search.survival(record)
    yield from _ends.failures(record, there)
    yield from _ends.cost(record, there)
    yield from _ends.happened(record)
    yield from _next(record, place)
    yield from (Heading(NOTES.heading), Paragraph((NOTES.line,)))


def _next(record: StudyRecord, place: str) -> Iterator[Block]:
    yield Heading("What to do next")
    commands = wording.next_commands(record, place)
    commands.append((shell.command("report", place, "--wandb"), "bring this report up to date"))
    yield Bullets(tuple((Code(command), f": {what}") for command, what in commands))
