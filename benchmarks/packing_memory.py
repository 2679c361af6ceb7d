"""Peak memory of a pack of eight trials beside that of eight processes with one each."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.packing_cases import IMAGES, images_on, solo

STEPS = 6
PAUSE = 0.05
"""Seconds between two looks at the memory."""


def child(which: str) -> None:
    """Trains the eight trials packed (``all``), or one of them by itself; then waits to be told that all are done, so
    that peaks of several processes fall together."""
    import torch

    torch.set_num_threads(1)
    cases = IMAGES if which == "all" else [IMAGES[int(which)]]
    trainer, contexts = images_on(cases, threads=1)
    if which == "all":
        pack = trainer.pack(contexts[0])
        for context in contexts:
            pack.join(context)
        for _ in range(STEPS):
            pack.step()
    else:
        task, trial = solo(trainer, contexts[0])
        for _ in range(STEPS):
            micro = trial.next()
            trial.learnt(task.engine.accumulate([task.loss(micro.batch)], [micro.share], [micro.part])[0])
    print("done", flush=True)
    sys.stdin.readline()


def peaks() -> tuple[float, float]:
    """MiB at the peak: eight processes together, and one with the pack."""
    return _peak([str(number) for number in range(len(IMAGES))]), _peak(["all"])


def _peak(children: Sequence[str]) -> float:
    root = Path(__file__).parents[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.packing", "child", which],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for which in children
    ]
    most = 0.0
    try:
        waiting = set(range(len(started)))
        while waiting:
            if any(one.poll() is not None for one in started):
                raise SystemExit("a process of the memory benchmark ended before its time")
            most = max(most, sum(_pss(one.pid) for one in started))
            waiting -= {index for index in waiting if _has_said(started[index])}
            time.sleep(PAUSE)
        return max(most, sum(_pss(one.pid) for one in started)) / 1024
    finally:
        for one in started:
            one.kill()
            one.communicate()


def _has_said(process: subprocess.Popen[str]) -> bool:
    import select

    assert process.stdout is not None
    return bool(select.select([process.stdout], [], [], 0)[0])


def _pss(pid: int) -> float:
    """KiB that a process holds, what it shares counted in part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1])
    raise SystemExit("this system does not say what memory processes share")
