"""The tables of docs/search.md, between their markers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.search.catalogue import METHODS
from benchmarks.search.measures import Measures
from benchmarks.search.plan import COMPARED, HELD_OUT, OURS, Group
from benchmarks.search.runs import Key
from benchmarks.search.statistics import Estimate, estimate, mean, table
from benchmarks.search.tasks import DEVELOPMENT

PAGE = Path(__file__).parents[2] / "docs" / "search.md"
BEGIN, END = "<!-- made by `make bench-search`: begin -->", "<!-- made by `make bench-search`: end -->"
VARIANTS = {
    "noisy": "noise of 0.1 regret (standard deviation) on every report",
    "failing": "a tenth of the space ends in NaN",
    "constrained": "rules make 48.5% of uniform draws infeasible",
    "good-priors": "5 good configurations of other tasks",
    "bad-priors": "5 configurations of the worst decile",
}


def write(found: Measures, page: Path = PAGE) -> None:
    """Puts the tables between the markers of the page; the page is begun where there is none.

    Raises:
        ValueError: the page has no markers.
    """
    text = page.read_text("utf-8") if page.exists() else f"# The search\n\n{BEGIN}\n{END}\n"
    if BEGIN not in text or END not in text:
        raise ValueError(f"{page}: got no markers; must have {BEGIN!r} and {END!r}")
    made = "\n".join([BEGIN, *tables(found), END])
    page.write_text(re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: made, text, flags=re.S), encoding="utf-8")


def tables(found: Measures) -> Iterator[str]:
    """Lines of all tables."""
    few, last = found.plan.few, found.plan.all
    at = f"regret at K={few} | regret at K={last}"
    yield f"\n| method | {at} | share of TPE's wall time | runs |\n|---|---|---|---|---|"
    for method in COMPARED:
        yield from _main_row(found, Group(method))
    for method in OURS:
        yield from _main_row(found, Group(method, workers=8))
    yield f"\n| variant | method | {at} | failed, second half | wasted suggestions | runs |"
    yield "|---|---|---|---|---|---|---|"
    for variant, said in VARIANTS.items():
        for method in METHODS:
            yield from _variant_row(found, Group(method, variant), said)
    yield "\n| seconds a suggestion takes | median | 95th percentile | longest |\n|---|---|---|---|"
    for method in OURS:
        yield from _seconds_row(found, method)
    yield from _held_out(found)


def _main_row(found: Measures, group: Group) -> Iterator[str]:
    rows = found.of(group)
    if rows:
        share = found.wall_share(group) if group.method != "tpe1" else None
        few, last = found.regret(group, found.plan.few), found.regret(group, found.plan.all)
        cells = [_cell(few), _cell(last)]
        told = "1" if group.method == "tpe1" else _cell(share)
        workers = "" if group.workers == 4 else f", {group.workers} workers"
        yield f"| {METHODS[group.method].label}{workers} | {' | '.join(cells)} | {told} | {few.n if few else 0} |"


def _variant_row(found: Measures, group: Group, said: str) -> Iterator[str]:
    rows = found.of(group).values()
    if rows:
        cells = [_cell(found.regret(group, found.plan.few)), _cell(found.regret(group, found.plan.all))]
        failed = sum(row.failed[1] for row in rows) / len(rows)
        wasted = sum(row.wasted for row in rows) / sum(row.wasted + row.trials for row in rows)
        label = METHODS[group.method].label
        yield f"| {said} | {label} | {' | '.join(cells)} | {failed:.1%} | {wasted:.1%} | {len(rows)} |"


def _seconds_row(found: Measures, method: str) -> Iterator[str]:
    rows = list(found.of(Group(method)).values())
    if rows:
        median, high = (sorted(row.suggest[place] for row in rows)[len(rows) // 2] for place in (0, 1))
        longest = max(row.suggest[2] for row in rows)
        yield f"| {METHODS[method].label} | {median:.3f} | {high:.3f} | {longest:.2f} |"


def _held_out(found: Measures) -> Iterator[str]:
    few, last = found.plan.few, found.plan.all
    rows = {key: row for key, row in found.rows.items() if _is_held_out(key, last)}
    if not rows:
        return
    yield f"\n| on tasks nobody designed on | regret at K={few} | regret at K={last} | runs |\n|---|---|---|---|"
    for method in HELD_OUT:
        mine = {(key.task, key.seed): row for key, row in rows.items() if key.method == method}
        tasks, seeds = sorted({task for task, _ in mine}), sorted({seed for _, seed in mine})
        if mine and len(mine) == len(tasks) * len(seeds):
            at = {place: np.array([row.regret(few), row.regret(last)]) for place, row in mine.items()}
            values = table(at, tasks, seeds)
            cells = [_cell(estimate(mean, values[:, :, place])) for place in (0, 1)]
            yield f"| {METHODS[method].label} | {' | '.join(cells)} | {len(mine)} |"


def _is_held_out(key: Key, budget: int) -> bool:
    return key.task not in DEVELOPMENT and key.budget == budget and key.seed >= 10


def _cell(found: Estimate | None) -> str:
    if found is None:
        return "-"
    if math.isinf(found.value):
        return "never within its budget"
    high = "never" if math.isinf(found.high) else f"{found.high:.3f}"
    return f"{found.value:.3f} ({found.low:.3f} to {high})".replace("0.", ".")
