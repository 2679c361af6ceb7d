"""What people preferred, in words: the table at the end of `rate`, and the lines beside other results."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tune_lora import wording
from tune_lora.preferences import Liking, Preferences
from tune_lora.rank_agreement import ENOUGH, Correlation
from tune_lora.records import StudyRecord


def liked(one: Liking | None) -> str:
    """A preference score with half of its 90% interval, ``+1.2 ±0.6``; a dash for none."""
    return "–" if one is None else f"{one.score:+.1f} ±{(one.high - one.low) / 2:.1f}"


def lines(found: Preferences) -> list[str]:
    """What there is to say of ratings as a whole, one sentence each."""
    raters = len(found.raters)
    told = [
        f"rated: {_count(found.judgements, 'pair')} of {_count(len(found.likings), 'trial')} by "
        f"{_count(raters, 'rater')} ({', '.join(found.raters)}); 'liked' is in logits around their mean, ± 90%",
        agreement(found),
    ]
    return told + _reliability(found)


def agreement(found: Preferences) -> str:
    """Whether people order the trials as the study's score does."""
    agreed = found.agreement
    if agreed.spearman is None or agreed.kendall is None:
        return (
            f"people and the score: {agreed.verdict} ({_count(agreed.n, 'rated trial')} with different scores; "
            f"must be {ENOUGH} or more)"
        )
    return (
        f"people and the score: {agreed.verdict} (rank correlation {_interval(agreed.spearman)}, Kendall's tau "
        f"{_interval(agreed.kendall)}, 90% intervals, {agreed.n} trials)"
    )


def summary(record: StudyRecord, found: Preferences | None) -> RenderableType:
    """What is printed when a rater is done."""
    if found is None:
        return Text("nothing is rated yet")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "trial", "liked", "best of all", "won", "lost", "equal", "by the score"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("result")
    trials = {trial.number: trial for trial in record.trials}
    places = {trial.number: place for place, trial in enumerate(record.ranked(), start=1)}
    for rank, one in enumerate(found.likings, start=1):
        cells = (
            str(rank),
            str(one.trial),
            liked(one),
            f"{one.chance:.0%}",
            *map(str, (one.wins, one.losses, one.ties)),
        )
        place = str(places[one.trial]) if one.trial in places else "–"
        style = "bold" if rank == 1 else ""
        table.add_row(*cells, place, Text(wording.result(record, trials[one.trial])), style=style)
    return Group(table, *map(Text, lines(found)))


def _reliability(found: Preferences) -> list[str]:
    seen, told = found.consistency, []
    if seen.repeated:
        told.append(f"pairs that came again: {seen.same} of {seen.repeated} were answered as before")
    if seen.shared:
        told.append(f"pairs that two raters saw: {seen.alike} of {seen.shared} were answered alike")
    if seen.prefers_a_side:
        told.append(
            f"the left one was preferred {seen.left} times and the right one {seen.right} times, though sides are "
            "drawn: the answers may be about the side"
        )
    return told


def _interval(of: Correlation) -> str:
    return f"{of.value:.2f}, {of.low:.2f} to {of.high:.2f}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
