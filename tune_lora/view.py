"""What a person sees of a study in a terminal: the live view, the summary at its end, the table of the best trials."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tune_lora import baseline, incidents, names, shares, verify_words, wording
from tune_lora.records import pareto
from tune_lora.store import StudyRecord, TrialRecord

REFRESH_SECONDS = 0.5
"""Shortest time between two pictures of the live view."""
_STYLES = {"completed": "green", "pruned": "dim", "failed": "red", "running": "cyan", "waiting": "dim"}
_FILES = {
    "report.html": "everything on one page, opens in a browser",
    "best": "the winner's LoRA files",
    "best_config.yaml": "the winner's configuration",
    "all_trials.csv": "every trial",
    "figures": "pictures of the study",
    "study.db": "the study itself (Optuna)",
}


class LiveView:
    """Follows a running study: a small live panel on a terminal, otherwise one line for each trial that ended.

    Used as a context manager. `update` may be called as often as one likes.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console()
        self._clock = clock
        self._next_picture = 0.0
        self._opened = dt.datetime.now()  # noqa: DTZ005 - Optuna keeps local times without a zone
        self._told: set[int] = set()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, record: StudyRecord, *, total: int, force: bool = False) -> None:
        """Shows the study as it is now; a call too soon after the last one is ignored unless forced."""
        if not force and self._clock() < self._next_picture:
            return
        self._next_picture = self._clock() + REFRESH_SECONDS
        if self._console.is_terminal:
            self._live.update(panel(record, total), refresh=True)
        else:
            self._say_what_ended(record, total)

    def note(self, line: str) -> None:
        """Prints one line, above the live panel where there is one."""
        self._console.print(Text(line, style="dim"), soft_wrap=True)

    def _say_what_ended(self, record: StudyRecord, total: int) -> None:
        for trial in record.trials:
            if not _ended(trial) or trial.number in self._told:
                continue
            self._told.add(trial.number)
            if trial.finished is None or trial.finished >= self._opened:  # not those of an earlier run
                self._console.print(Text(_line(trial, record, total)), soft_wrap=True)


def panel(record: StudyRecord, total: int) -> RenderableType:
    """The live view's picture: progress, counts, the best so far, time left."""
    done = sum(trial.counts for trial in record.trials)
    head = Table.grid(padding=(0, 1))
    left = time_left(record, total)
    ahead = f"about {wording.duration(left)} left" if left else ""
    bar = ProgressBar(total=max(total, 1), completed=min(done, total), width=28)
    head.add_row(Text(record.name, style="bold"), bar, Text(f"{done}/{total} trials"), Text(ahead, style="dim"))
    parts: list[RenderableType] = [head, _counts(record), *_knowledge(record)]
    best = record.best
    if best is not None:
        kind = "recommended" if record.has_several else "best"
        so_far = " " if done >= total else " so far "
        line = Text.assemble(kind, so_far, (wording.result(record, best), "bold"), f" (trial {best.number})")
        if record.has_several:
            line.append(f", {len(pareto(record))} on the Pareto front", "dim")
        if against := wording.over_baseline(record, best):
            line.append(f", {against}")
        if record.is_uncalibrated:
            line.append(f"  {wording.UNCALIBRATED}", "yellow")
        if done >= total and not record.is_verified:
            line.append(f"  {wording.NOT_VERIFIED}", "yellow")
        parts += [line, Padding(Text(_searched(record, best), style="dim"), (0, 0, 0, 2))]
        parts += [Text(sure)] if (sure := verify_words.note(record)) else []
    return Group(*parts)


def time_left(record: StudyRecord, total: int) -> float | None:
    """Seconds until `total` trials have ended, by the mean of those that did; None before the first."""
    ended = [trial.seconds for trial in record.trials if trial.counts and trial.seconds > 0]
    if not ended:
        return None
    remaining = max(0, total - sum(trial.counts for trial in record.trials))
    return remaining * (sum(ended) / len(ended)) / shares.devices(record)


def summary(record: StudyRecord, folder: Path) -> RenderableType:
    """What is printed at the end of a study.

    Args:
        record: the study.
        folder: its results folder; only files that exist are named.
    """
    parts: list[RenderableType] = [Text(f"Study {record.name}", style="bold"), _counts(record)]
    parts += _knowledge(record)
    parts += [Text(f"  failed, {cause}: {n}", style="red") for cause, n in wording.failures_by_cause(record).items()]
    parts += [Text(f"  refused draws, {rule}: {n}") for rule, n in wording.rejections(record).items()]
    if record.stop_reason:
        parts.append(Text(f"stopped: {record.stop_reason}"))
    parts += [Text(""), *_best(record), Text("")]
    if record.incidents:
        parts += [Text("what happened:"), *(Text(f"  {line}") for line in incidents.shown(record.incidents)), Text("")]
    files = {str(folder / name): what for name, what in _FILES.items() if (folder / name).exists()}
    parts += [_pairs(files), Text(""), _pairs(dict(wording.next_commands(record, str(folder))), style="bold")]
    return Group(*parts)


def top_table(record: StudyRecord, n: int = 10) -> RenderableType:
    """The best `n` completed trials, best first. What all trials have in common stands once, below.

    With several objectives the Pareto front comes first, marked, and the recommended trial leads it.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    about = [objective.name for objective in record.objectives] or [record.score_name]
    has_baseline = baseline.baseline_trial(record) is not None
    more = ["front"] if record.has_several else ["vs baseline"] if has_baseline else []
    liked, rated = _people(record)
    more += ["liked"] if liked else []
    again = verify_words.marks(record, [trial.number for trial in record.ranked()[:n]])
    more += ["verified (is the best)"] if again else []
    for name in ("", "trial", *about, *more, "time" if shares.seats(record) == 1 else "device time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("configuration")
    leading = {trial.number for trial in pareto(record)}
    for rank, trial in enumerate(record.ranked()[:n], start=1):
        mark = ["✓" if trial.number in leading else ""] if record.has_several else []
        mark += [wording.percent(baseline.improvement(record, trial))] if has_baseline else []
        mark += [liked.get(trial.number, wording.number(None))] if liked else []
        mark += [again.get(trial.number, wording.number(None))] if again else []
        values = map(wording.number, trial.values if record.has_several else [trial.value])
        cells = (str(rank), str(trial.number), *values, *mark, wording.duration(trial.seconds))
        style = "bold" if trial == record.winner else ""
        table.add_row(*(Text(cell, style=style) for cell in cells), Text(_searched(record, trial)))
    notes = [Text(line) for line in [*wording.trade(record), *rated]]
    notes += [Text(share, style="dim")] if (share := shares.note(record)) else []
    notes += [Text(sure)] if (sure := verify_words.note(record)) else []
    notes += [Text(caveat, style="yellow") for caveat in wording.caveats(record)]
    if not record.ranked():
        return Group(Text(f"no trial has completed yet ({wording.counts_line(record)})"))
    shared = wording.shared_settings(record)
    if shared:
        notes.insert(0, Text(f"in every trial: {_settings(shared)}", style="dim"))
    return Group(table, *notes)


def _people(record: StudyRecord) -> tuple[Mapping[int, str], list[str]]:
    """How much each trial was liked by people who saw its pictures, and what to say of it; empty where nobody did."""
    if not record.ratings:
        return {}, []
    from tune_lora import preferences, rating_view  # they load scipy

    found = preferences.of(record)
    if found is None:
        return {}, []
    return {one.trial: rating_view.liked(one) for one in found.likings}, rating_view.lines(found)


def _best(record: StudyRecord) -> Iterable[RenderableType]:
    best = record.winner
    if best is None:
        return [Text("no trial completed, so there is no best configuration", style="yellow")]
    if sure := verify_words.note(record):
        line = Text.assemble((sure, "bold"))
    else:
        line = Text.assemble("best: trial ", (str(best.number), "bold"), ", ", (wording.scored(record, best), "bold"))
    if better := wording.improvement(record):
        line.append(f", {better}")
    if against := wording.over_baseline(record, best):
        line.append(f", {against}")
    parts: list[RenderableType] = [Text(text) for text in wording.trade(record)] or [line]
    if told := wording.stages(record):
        parts.append(Text(told))
    parts += [Text(caveat, style="yellow") for caveat in wording.caveats(record)]
    parts.append(Padding(_pairs(wording.settings(best.config)), (0, 0, 0, 2)))
    compared = wording.against_baseline(record)
    if compared:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("measure", record.untrained_name, f"trial {best.number}"):
            table.add_column(name)
        for row in compared:
            table.add_row(*(Text(cell) for cell in row))
        parts += [Text(""), Padding(table, (0, 0, 0, 2))]
    return parts


def _counts(record: StudyRecord) -> Text:
    parts = [Text(f"{n} {state}", style=_STYLES.get(state, "")) for state, n in wording.counts(record).items()]
    if refused := sum(record.rejections.values()):
        parts.append(Text(f"{refused} infeasible draws refused", style="dim"))
    return Text(" · ").join(parts or [Text("no trial yet", style="dim")])


def _knowledge(record: StudyRecord) -> list[RenderableType]:
    return [Text(line, style="dim") for line in wording.knowledge(record)]


def _line(trial: TrialRecord, record: StudyRecord, total: int) -> str:
    done = sum(one.counts for one in record.trials)
    state = "completed" if trial.state == "complete" else trial.state
    score = f" {wording.result(record, trial)}" if trial.state == "complete" else ""
    why = f" ({wording.cause(trial)})" if trial.state == "failed" and trial.cause else ""
    best = f", best {wording.result(record, record.best)} (trial {record.best.number})" if record.best else ""
    return f"[{done}/{total}] trial {trial.number} {state}{score}{why}{best}"


def _searched(record: StudyRecord, trial: TrialRecord) -> str:
    shared = wording.shared_settings(record)
    called = names.short(trial.config)
    own = {name: text for name, text in wording.settings(trial.config).items() if name not in shared}
    return _settings({called[name]: text for name, text in own.items()})


def _settings(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in settings.items())


def _pairs(items: Mapping[str, str], style: str = "") -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="fold")
    for name, text in items.items():
        grid.add_row(Text(name, style=style), Text(text))
    return grid


def _ended(trial: TrialRecord) -> bool:
    return trial.state in ("complete", "pruned", "failed")
