"""The figures of the search with their goals, as result objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.common import result
from benchmarks.search.measures import Measures, told
from benchmarks.search.plan import OURS, Group
from benchmarks.search.runs import Row
from benchmarks.search.statistics import Estimate

ABOUT = (
    "LCBench tasks {tasks}, seeds {seeds} (MOBSTER {slow}), 4 workers unless said; regret 0 is the best final score "
    "known, 1 the median of random configurations; K is the budget in full trainings; intervals are 95%, bootstrapped "
    "over tasks and seeds"
)
SHARE = "wall time to the regret that one-at-a-time TPE has at K={all}, as a share of TPE's"


@dataclass(frozen=True)
class Figure:
    """A figure: what is measured, and the part of the estimate that is held against the goal."""

    name: str
    goal: str | None
    unit: str
    note: str
    measure: Callable[[Measures], Estimate | None]
    part: Callable[[Estimate], float] = lambda found: found.value

    def result(self, measures: Measures) -> dict[str, Any]:
        """The result object; its figure is None where the runs are not there or the mark was never reached."""
        plan, found = measures.plan, self.measure(measures)
        note = self.note.format(few=plan.few, all=plan.all)
        runs = 0 if found is None else found.n
        if found is not None:
            seeds, slow = _span(plan.seeds), _span(plan.slow_seeds)
            note += f": {found}; {ABOUT.format(tasks=', '.join(plan.tasks), seeds=seeds, slow=slow)}"
        measured = None if found is None else told(self.part(found))
        return result(self.name, measured=measured, goal=self.goal, unit=self.unit, runs=runs, note=note)


def _span(seeds: range) -> str:
    return f"{seeds.start} to {seeds.stop - 1}"


def _regret(method: str, which: str, variant: str = "plain") -> Callable[[Measures], Estimate | None]:
    return lambda found: found.regret(Group(method, variant), getattr(found.plan, which))


def _share(method: str, workers: int = 4) -> Callable[[Measures], Estimate | None]:
    return lambda found: found.wall_share(Group(method, workers=workers))


def _gain(group: Group, over: Group, which: str = "all") -> Callable[[Measures], Estimate | None]:
    return lambda found: found.gain(group, over, getattr(found.plan, which))


def _mean(group: Group, what: Callable[[Row], float]) -> Callable[[Measures], Estimate | None]:
    return lambda found: found.mean(group, what)


def _low(found: Estimate) -> float:
    return found.low


def _marks() -> Iterator[Figure]:
    plain = Group("auto")
    yield Figure("search_tpe_k50", "<= 0.17", "regret", "`sampler: tpe` at K={all}", _regret("tpe", "all"))
    yield Figure("search_tpe_wall", "<= 0.12", "share", f"`sampler: tpe`, {SHARE}", _share("tpe"))
    yield Figure("search_k20", "<= 0.15", "regret", "`sampler: auto` at K={few}", _regret("auto", "few"))
    yield Figure("search_k50", "<= 0.12", "regret", "`sampler: auto` at K={all}", _regret("auto", "all"))
    yield Figure("search_wall_share", "<= 0.05", "share", f"`sampler: auto`, {SHARE}", _share("auto"))
    yield Figure("search_wall_share_w8", "<= 0.03", "share", f"`sampler: auto`, 8 workers, {SHARE}", _share("auto", 8))
    yield Figure(
        "search_priors_k20", "<= 0.12", "regret",
        "`sampler: auto` at K={few} with 5 priors, each the best of 2000 random configurations on another task",
        _regret("auto", "few", "good-priors"),
    )  # fmt: skip
    yield Figure(
        "search_bad_priors", "<= 0.02", "regret",
        "`sampler: auto` at K={all} with 5 priors of the task's worst decile, less its regret with none",
        _gain(plain, Group("auto", "bad-priors")),
    )  # fmt: skip
    yield from _constrained()
    yield from _failing()
    for name, goal, part, what in (
        ("search_vs_mobster", "> 0", _low, "lower end of the interval of "),
        ("search_vs_mobster_mean", None, lambda found: found.value, ""),
    ):
        yield Figure(
            name, goal, "regret",
            f"{what}MOBSTER's regret at K={{few}} less that of `sampler: auto`, paired, MOBSTER with grace 6 and eta 3",
            _gain(plain, Group("mobster"), "few"), part,
        )  # fmt: skip


def _of_ours(variant: str) -> Iterator[tuple[str, Group, str]]:
    """Our methods on a variant, each with what its figures' names end with."""
    for method in OURS:
        yield method, Group(method, variant), "" if method == "auto" else "_tpe"


def _constrained() -> Iterator[Figure]:
    rules = "rules shaped like those of lora_v2_1 make 48.5% of uniform draws infeasible"
    for method, ours, ending in _of_ours("constrained"):
        yield Figure(
            f"search_constrained_wasted{ending}", "<= 0", "suggestions",
            f"suggestions of `sampler: {method}` that were thrown away or trained against a rule, a run; {rules}",
            _mean(ours, lambda row: row.wasted + row.broken),
        )  # fmt: skip
        over = f"regret at K={{all}} of `TrialPruned` handling (univariate TPE, ASHA(6, 3)) less `sampler: {method}`"
        gain = _gain(ours, Group("refusing", "constrained"))
        yield Figure(f"search_constrained{ending}", ">= 0.05", "regret", f"{over}; {rules}", gain)
        yield Figure(f"search_constrained_low{ending}", "> 0", "regret", f"lower end of {over}", gain, _low)
        yield Figure(
            f"search_constrained_vs_set_constraint{ending}", None, "regret",
            f"the same over Optuna's own `set_constraint`, `sampler: {method}`",
            _gain(ours, Group("constraints", "constrained")),
        )  # fmt: skip
    yield Figure(
        "search_constrained_wasted_by_pruning", None, "share",
        f"share of suggestions that `TrialPruned` handling throws away; {rules}",
        _mean(Group("refusing", "constrained"), lambda row: row.wasted / (row.wasted + row.trials)),
    )  # fmt: skip


def _failing() -> Iterator[Figure]:
    where = "a tenth of the space (learning rate over one minus momentum above 0.15) ends in NaN"
    for method, ours, ending in _of_ours("failing"):
        yield Figure(
            f"search_failures{ending}", "< 0.05", "share",
            f"failed share of the second half of the trials of `sampler: {method}`; {where}",
            _mean(ours, lambda row: row.failed[1]),
        )  # fmt: skip
        yield Figure(
            f"search_failures_regret{ending}", "<= 0.02", "regret",
            f"regret of `sampler: {method}` at K={{all}} where {where}, towards the best that does not, less its "
            "regret without failures",
            _gain(Group(method), ours),
        )  # fmt: skip


FIGURES: tuple[Figure, ...] = tuple(_marks())
"""In the order in which they are written."""
