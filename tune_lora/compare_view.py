"""What a comparison of two studies looks like in a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tune_lora.compare import Comparison, Place
from tune_lora.compare_statistics import CHOICE_MARGIN, MARGIN
from tune_lora.records import StudyRecord

_STYLES = {"same region": "bold green", "different: run more": "bold red"}
_CALLS = {"none": "the same", "real": "different", "open": "cannot tell"}


def summary(found: Comparison, first: StudyRecord, second: StudyRecord) -> RenderableType:
    """The verdict, why, and the numbers behind it."""
    parts: list[RenderableType] = [
        Text(f"{first.name} ({found.counts[0]} completed) and {second.name} ({found.counts[1]} completed)"),
        Text(found.verdict, style=_STYLES.get(found.verdict, "bold yellow")),
        *(Text(f"  {line}") for line in found.why),
    ]
    if found.places:
        parts += [Text(""), table(found, first, second), Text(_margins(), style="dim")]
    parts += [Text(""), *(Text(line) for line in lines(found, first, second))]
    return Group(*parts)


def table(found: Comparison, first: StudyRecord, second: StudyRecord) -> RenderableType:
    """Where the best trials of both lie, a row a hyperparameter; what decides is not dim."""
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("the best lie at", first.name, second.name, "difference", "p", ""):
        shown.add_column(name, justify="left" if name == "the best lie at" else "right")
    for place in found.places:
        one = place.difference
        cells = (_name(place), f"{one.first:.2f}", f"{one.second:.2f}", f"{one.low:+.2f} to {one.high:+.2f}")
        shown.add_row(*cells, f"{one.p:.3f}", _CALLS[one.call], style="" if place.decides else "dim")
    return shown


def lines(found: Comparison, first: StudyRecord, second: StudyRecord) -> list[str]:
    """What else was looked at, one sentence each."""
    told = []
    if found.p is not None:
        told.append(f"best regions over all of these at once: p {found.p:.3f} of being one (energy test, permuted)")
    if found.scores is not None:
        one = found.scores.best
        told.append(
            f"results: p {found.scores.p:.3f} of one distribution; the best of {second.name} are {one.low:+.2f} to "
            f"{one.high:+.2f} standard deviations of the results from those of {first.name}"
        )
    elif first.score_name != second.score_name or first.direction != second.direction:
        told.append(f"results: not compared, one is {first.score_name} and the other {second.score_name}")
    if found.importance is not None:
        value, p = found.importance
        told.append(f"what mattered: rank correlation {value:+.2f} of the shares (p {p:.3f} of being chance)")
    if found.left_out:
        told.append(f"left out, since only one of them searched it in that form: {', '.join(found.left_out)}")
    return told


def _name(place: Place) -> str:
    what = place.name if place.choice is None else f"{place.name}: {place.choice}"
    if place.shares is None:
        return what
    return f"{what} (explains {place.shares[0]:.0%}, {place.shares[1]:.0%})"


def _margins() -> str:
    return (
        f"in shares of the range searched, or of trials with the choice; 90% intervals; the same: within {MARGIN:g} "
        f"({CHOICE_MARGIN:g} for choices); dim: hardly matters in either study"
    )
