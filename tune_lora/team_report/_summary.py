"""The top of a team report: what is recommended, how sure that is, what the study says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tune_lora import analysis, findings_view, shell, verify_words, wording
from tune_lora import verification as verifications
from tune_lora.analysis import Finding
from tune_lora.records import StudyRecord
from tune_lora.team_report._parts import Block, Bullets, Callout, Code, Heading, Line, Paragraph, Table, Words
from tune_lora.team_report._place import There


def recommendation(record: StudyRecord, there: There) -> Iterator[Block]:
    """The one line that is read where nothing else is, and what must stand beside it."""
    winner = record.winner
    if winner is None:
        yield Callout(("No winner yet: no trial has completed.",))
    else:
        known = wording.result(record, winner) if record.has_several else wording.number(record.winner_value)
        worth = known if record.has_several else f"{record.score_name} {known}"
        yield Callout(("Recommended: ", there.link(winner.number, f"trial {winner.number}"), f", {worth}."))
    yield from (Callout((f"{wording.capital(caveat)}.",)) for caveat in wording.caveats(record))
    if record.is_verified:
        yield Callout((f"{wording.capital(verify_words.note(record))}.",))


def summary(record: StudyRecord) -> Iterator[Block]:
    """Facts, and the recommended configuration."""
    yield Heading("Summary")
    facts = [f"{name}: {text}" for name, text in _facts(record)]
    yield Bullets(tuple((line,) for line in (wording.capital(wording.counts_line(record)), *facts)))
    winner = record.winner
    if winner is None:
        return
    yield Heading("The recommended configuration" if record.has_several else "The best configuration", 2)
    searched = set(record.parameter_names)
    rows = [
        (name, value, "searched" if name in searched else "set by the space")
        for name, value in wording.settings(winner.config).items()
    ]
    yield Table(("setting", "value", ""), tuple(rows), frozenset({1}))


def trust(record: StudyRecord, there: There, place: str) -> Iterator[Block]:
    """The leaders measured again, or that they were not."""
    if record.best is None:
        return
    yield Heading("Can the winner be trusted?")
    found = verifications.of(record)
    if found is None:
        yield Paragraph(_not_verified(record, place))
        return
    said = found.deciding
    yield Paragraph((f"{verify_words.heading(said)}. The search's own value is the lucky one; what counts is now.",))
    rows = [(there.link(one.trial), *verify_words.cells(one)) for one in said.candidates]
    head = ("trial", "in the search", "now", f"{found.confidence:.0%} interval", "is the best")
    yield Table(head, tuple(rows), frozenset(range(len(head))))
    failed = [(f"trial {number} could not be measured again: {why}",) for number, why in said.failed.items()]
    yield Bullets((*((line,) for line in verify_words.lines(found, place)), *failed))


def findings(record: StudyRecord, found: Iterable[Finding], place: str) -> Iterator[Block]:
    """Each sign with what to do, the success table of image LoRAs."""
    lines = [_finding(one, place) for one in found]
    if not lines:
        return
    yield Heading("What the study says")
    yield Bullets(tuple(lines))
    table = analysis.success_table(record)
    if table is None:
        return
    yield Heading("Success table", 2)
    yield Paragraph((f"{table.summary}.",))
    words = {True: "yes", False: "no", None: "cannot be told"}
    rows = tuple((one.name, one.measured, one.goal, words[one.holds], one.note) for one in table.criteria)
    yield Table(("criterion", "measured", "goal", "holds", ""), rows, frozenset({1}))
    yield Bullets(tuple((findings_view.distribution(one),) for one in table.distributions))


def _finding(one: Finding, place: str) -> Line:
    said = f"{analysis.KIND_WORDS[one.kind]}: {one.sentence}."
    if not one.advice:
        return (said,)
    parts: list[Words] = [Code(text) if is_command else text for text, is_command in one.advice_parts(place)]
    return tuple(part for part in (f"{said} What to do: ", *parts, ".") if part)


def _not_verified(record: StudyRecord, place: str) -> Line:
    if record.has_several:
        return ("A study with several objectives has no single winner; choose a member of the front, and train it "
                "with other seeds.",)  # fmt: skip
    how = () if wording.draws(record) else ("--retrain",)
    return (
        "Not verified: the best of many noisy scores is a lucky one. Measure the leaders again with ",
        Code(shell.command("verify", place, *how)),
        ".",
    )


def _facts(record: StudyRecord) -> list[tuple[str, str]]:
    facts = [("Goal", wording.goal(record))]
    told = [text for text in (wording.improvement(record), wording.over_baseline(record, record.winner)) if text]
    facts += [("Best", "; ".join(told))] if told else []
    facts.append(("Why it stopped", record.stop_reason or "it has not stopped, or was interrupted"))
    return facts + [("Data", str(note)) for note in record.calibration.get("data", ())]
