"""Trials in a pack against the same trials in two processes at a time: samples per second of the whole machine.

Every side has two threads in all. Two processes with one each, that train four trials one after another, are what
the others are compared with: one pack of eight with both threads, two packs of four with one each, and two packs of
eight with one each, as in a study with more trials than places. All processes are started, with base and data loaded
and a micro-batch trained, before the clock starts; the sides take turns, and who is not measured waits without
computing. Epochs are too long for any to end here, so nobody reports.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import common, together
from benchmarks.packing_cases import IMAGES, images_on, solo
from benchmarks.together import Span

RUNS, STEPS = (1, 4) if common.QUICK else (7, 24)
"""Steps are micro-batches of each trial; an even number, so that every accumulation of two is whole."""
REPEATS = 100
"""An epoch is longer than what all runs train of it."""
GOAL = ">= 1.3"


@dataclass(frozen=True)
class Worker:
    """A process: trials `first` up to `last` of the eight, ``packed`` or one after another (``alone``)."""

    kind: str
    first: int
    last: int
    threads: int

    @property
    def trials(self) -> int:
        """How many it trains."""
        return self.last - self.first


ALONE = "processes"
SIDES: Mapping[str, tuple[Worker, ...]] = {
    ALONE: (Worker("alone", 0, 4, 1), Worker("alone", 4, 8, 1)),
    "pack of 8": (Worker("packed", 0, 8, 2),),
    "packs of 4": (Worker("packed", 0, 4, 1), Worker("packed", 4, 8, 1)),
    "packs of 8": (Worker("packed", 0, 8, 1), Worker("packed", 0, 8, 1)),
}


def child(worker: Worker) -> None:
    """A process of the benchmark."""
    trainer, contexts = images_on(IMAGES[worker.first : worker.last], threads=worker.threads)
    trainer = replace(trainer, dataset_settings={"repeats": REPEATS})
    train = _packed if worker.kind == "packed" else _alone
    together.serve(lambda steps: train(trainer, contexts, steps))


def _packed(trainer: Any, contexts: Sequence[Any], steps: int) -> tuple[list[Span], float]:
    pack = trainer.pack(contexts[0])
    try:
        for context in contexts:
            pack.join(context)
        pack.step()
        span = together.timed(pack.step, steps)
        return [span], together.go_on(pack.step)
    finally:
        pack.close()


def _alone(trainer: Any, contexts: Sequence[Any], steps: int) -> tuple[list[Span], float]:
    spans, ended = list[Span](), 0.0
    for context in contexts:
        task, trial = solo(trainer, context)

        def step(task: Any = task, trial: Any = trial) -> None:
            micro = trial.next()
            trial.learnt(task.engine.accumulate([task.loss(micro.batch)], [micro.share], [micro.part])[0])

        try:
            step()
            spans.append(together.timed(step, steps))
            if context is contexts[-1]:
                ended = together.go_on(step)
        finally:
            task.close()
    return spans, ended


def _started(worker: Worker) -> AbstractContextManager[subprocess.Popen[str]]:
    told = [worker.kind, str(worker.first), str(worker.last), str(worker.threads)]
    return together.started(["benchmarks.packing_processes", "child", *told], {"OMP_NUM_THREADS": str(worker.threads)})


def measure(sides: Mapping[str, Sequence[Worker]], runs: int, steps: int) -> dict[str, list[float]]:
    """Samples per second of each side, one number a run; the sides take turns."""
    found: dict[str, list[float]] = {side: [] for side in sides}
    with ExitStack() as stack:
        started = {side: [stack.enter_context(_started(one)) for one in sides[side]] for side in sides}
        for side in sides:  # loads the base and the data
            _measured(sides[side], started[side], 1)
        for run in range(runs):
            for side in sorted(sides, reverse=bool(run % 2)):
                found[side].append(_measured(sides[side], started[side], steps))
                print(f"{side}: {found[side][-1]:.1f} samples/s", flush=True)
    return found


def _measured(workers: Sequence[Worker], processes: Sequence[subprocess.Popen[str]], steps: int) -> float:
    worked = together.measured(processes, steps)
    return together.rate([worker.trials * steps for worker in workers], worked)


def figures(rates: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Ratios of sides that took turns."""
    median = {side: f"{statistics.median(found):.1f}" for side, found in rates.items()}
    where = f"tiny-sd at 64 px, batch 1, two threads in all, {STEPS} micro-batches of each of {len(IMAGES)} trials"
    beside = f"two processes of one thread, two trials at a time: {median[ALONE]} samples/s"

    def figure(name: str, side: str, goal: str | None, what: str) -> dict[str, Any]:
        pairs = zip(rates[side], rates[ALONE], strict=True)
        return common.result(
            name, measured=round(statistics.median(ours / theirs for ours, theirs in pairs), 3), goal=goal,
            unit="samples/s packed / of two processes", runs=len(rates[side]),
            note=f"{where}; {what}: {median[side]} samples/s; {beside}",
        )  # fmt: skip

    return [
        figure("packed_vs_processes", "packs of 4", GOAL, "two packs of four, a thread each, as `cpu: 1` has it"),
        figure("packed_one_vs_processes", "pack of 8", GOAL, "one pack of eight with both threads, as `cpu: 2` has it"),
        figure("packed_eights_vs_processes", "packs of 8", None, "two packs of eight with a thread each"),
    ]


def main() -> None:
    common.write("packing_processes", figures(measure(SIDES, RUNS, STEPS)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        kind, first, last, threads = sys.argv[2:]
        child(Worker(kind, int(first), int(last), int(threads)))
    else:
        main()
