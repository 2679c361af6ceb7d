"""Rows of the laboratory: one run of a method on a task, made once and kept in ``runs/<method>.jsonl``."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.search import registry
from benchmarks.search.catalogue import METHODS
from benchmarks.search.simulator import Method, Start, Timeline, Verdict, simulate
from benchmarks.search.tasks import Task, lcbench
from benchmarks.search.variants import VARIANTS

RUNS = Path(__file__).parent / "runs"


@dataclass(frozen=True, order=True)
class Key:
    """What a run is of. `budget` in full trainings."""

    method: str
    variant: str
    task: str
    seed: int
    workers: int
    budget: int

    @property
    def told_workers(self) -> int:
        """The workers it really has: a method that is one at a time stays so."""
        return METHODS[self.method].workers or self.workers


@dataclass(frozen=True)
class Row:
    """What came of a run.

    `trace` holds (wall time, budget, regret) wherever the incumbent changed: the completed trial with the best final
    score as it was seen, judged by the score that counts. `failed` are the shares of failed trials in the first and the
    second half, `wasted` the suggestions that were thrown away, `broken` the trials that ran against a rule, `suggest`
    the seconds a suggestion took: median, 95th percentile, maximum. Times and budgets in full trainings.
    """

    key: Key
    trace: tuple[tuple[float, float, float], ...]
    trials: int
    failed: tuple[float, float]
    wasted: int
    broken: int
    suggest: tuple[float, float, float]
    seconds: float

    def regret(self, at: float, by: Literal["budget", "wall"] = "budget") -> float:
        """The incumbent's regret at a budget or a wall time; 1 before there is one."""
        place = 1 if by == "budget" else 0
        return next((step[2] for step in reversed(self.trace) if step[place] <= at + 1e-9), 1.0)

    def to_json(self) -> str:
        """One line, numbers to four digits."""
        return json.dumps(_rounded({**vars(self.key), **{k: v for k, v in vars(self).items() if k != "key"}}))

    @classmethod
    def from_json(cls, line: str) -> Row:
        """Raises KeyError or TypeError where a line is not a row."""
        read = json.loads(line)
        key = Key(**{name: read.pop(name) for name in Key.__dataclass_fields__})
        trace = tuple((wall, budget, regret) for wall, budget, regret in read.pop("trace"))
        return cls(key, trace, failed=tuple(read.pop("failed")), suggest=tuple(read.pop("suggest")), **read)


class _Timed:
    """A method whose suggestions are timed."""

    def __init__(self, inner: Method) -> None:
        self._inner, self.seconds = inner, [0.0]

    def next(self) -> Start | None:
        began = time.perf_counter()
        start = self._inner.next()
        self.seconds.append(time.perf_counter() - began)
        return start

    def report(self, trial: str, epoch: int, score: float, final: bool) -> Verdict:
        return self._inner.report(trial, epoch, score, final)


def run(key: Key) -> Row:
    """Runs a method once, the task and everything drawn from the key's seed."""
    began = time.perf_counter()
    known = registry.task(key.task) if key.task in registry.names() else lcbench(key.task)
    task = VARIANTS[key.variant](known, key.seed)
    method = METHODS[key.method].build(task, key.seed)
    timed = _Timed(method)
    timeline = simulate(timed, task, workers=key.told_workers, budget=key.budget, seed=key.seed)
    half = len(timeline.failed) // 2
    p50, p95, longest = np.percentile(timed.seconds, (50, 95, 100))
    return Row(
        key=key,
        trace=trace(timeline, task),
        trials=len(timeline.started),
        failed=(_share(timeline.failed[:half]), _share(timeline.failed[half:])),
        wasted=int(getattr(method, "wasted", 0)),
        broken=sum(bool(task.space.violations(task.space.resolve(params))) for _, params in timeline.started),
        suggest=(float(p50), float(p95), float(longest)),
        seconds=time.perf_counter() - began,
    )


def trace(timeline: Timeline, task: Task) -> tuple[tuple[float, float, float], ...]:
    """Where the incumbent changed: (wall time, budget, regret)."""
    found, best = [], -math.inf
    for wall, budget, counts, seen in timeline.completed:
        if seen > best:
            best = seen
            found.append((wall, budget, task.regret(counts)))
    return tuple(found)


def keys(
    methods: Iterable[str],
    variants: Iterable[str],
    tasks: Iterable[str],
    seeds: Sequence[int],
    workers: int,
    budget: int,
) -> Iterator[Key]:
    """All of them, seed by seed, so that a run that is cut short has whole seeds."""
    for seed, method, variant, task in itertools.product(seeds, methods, variants, tasks):
        yield Key(method, variant, task, seed, workers, budget)


def load(folder: Path = RUNS) -> dict[Key, Row]:
    """Every row that was kept."""
    rows = (
        Row.from_json(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text("utf-8").split("\n")
        if line
    )
    return {row.key: row for row in rows}


def complete(wanted: Sequence[Key], folder: Path = RUNS, *, jobs: int = 1) -> None:
    """Runs what is missing, `jobs` at a time, and keeps it, a line as soon as a run is done."""
    known = load(folder)
    missing = [key for key in wanted if key not in known]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} runs exist", flush=True)
    began = time.monotonic()
    for done, row in enumerate(_made(missing, jobs), 1):
        keep(row, folder)
        left = (time.monotonic() - began) / done * (len(missing) - done)
        print(f"{done}/{len(missing)} {_told(row)}, {left / 60:.0f} min left", flush=True)


def _made(missing: Sequence[Key], jobs: int) -> Iterator[Row]:
    if jobs == 1:
        yield from map(run, missing)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run, key) for key in missing]):
            yield future.result()


def keep(row: Row, folder: Path = RUNS) -> None:
    """Adds a row to its method's file."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{row.key.method}.jsonl").open("a", encoding="utf-8") as file:
        file.write(row.to_json() + "\n")


def forget(unwanted: Collection[Key], folder: Path = RUNS) -> None:
    """Removes the rows of runs, which are then missing; a method that has changed is run again so."""
    for method in {key.method for key in unwanted}:
        path = folder / f"{method}.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if Row.from_json(line).key not in unwanted]
        if len(kept) < len(lines):
            path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _told(row: Row) -> str:
    key = row.key
    regrets = f"regret {row.regret(20):.3f} at 20, {row.regret(key.budget):.3f} at {key.budget}"
    return f"{key.method} {key.variant} {key.task} seed {key.seed}: {regrets}; {row.seconds:.1f} s"


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return value
