"""Eight adapters judged together against one after another: held-out loss, pictures, and what networks say of them.

Together and alone take turns in one process, on the same base and data; a figure is the median of paired ratios. Both
must measure the same.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import common
from benchmarks.packing_cases import IMAGES, images_on, solo

THREADS = 2
N_IMAGES = 2 if common.QUICK else 8
STEPS = 2 if common.QUICK else 15
RUNS = 1 if common.QUICK else 5
AT_ONCE = (8, 16, 32)
"""Images in one pass; the first is what a pack of eight trials takes at batch 1, and what a trial alone takes."""
BUDGET = 1
"""The report that is measured: somebody decides there, and the trial goes on."""


def _trainer() -> tuple[Any, list[Any]]:
    from trainables.diffusion_lora import ImageEvaluation

    trainer, contexts = images_on(IMAGES, threads=THREADS)
    trainer = dataclasses.replace(trainer, evaluation=ImageEvaluation(n_images=N_IMAGES, steps=STEPS))
    return trainer, [dataclasses.replace(context, decide_at=frozenset({BUDGET})) for context in contexts]


def _ready(task: Any, trial: Any, number: int) -> None:
    """An adapter that does something, and a report that is due."""
    import torch

    drawn = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for parameter in task.adapter.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=drawn))
    trial.done, trial._unit_losses = BUDGET, [1.0]


def _one_after_another(trainer: Any, contexts: Sequence[Any]) -> tuple[float, list[Mapping[str, float]]]:
    """Seconds of all reports, and their metrics."""
    seconds, found = 0.0, []
    for number, context in enumerate(contexts):
        task, trial = solo(trainer, context)
        try:
            _ready(task, trial, number)
            started = time.perf_counter()
            found.append(trial.report().metrics)
            seconds += time.perf_counter() - started
        finally:
            task.close()
    return seconds, found


def _together(trainer: Any, contexts: Sequence[Any], at_once: int) -> tuple[float, list[Mapping[str, float]]]:
    """The same of a pack, so many images in one pass."""
    from trainables.lora import judging
    from trainables.lora.ground import Panel

    pack = trainer.pack(contexts[0])
    try:
        seated = {}
        for number, context in enumerate(contexts):
            slot = pack._slots[pack.join(context)]
            _ready(slot.task, slot.trial, number)
            slot.trial.set_judging()
            seated[slot.number] = (slot.task, slot.trial)
        panel = Panel(pack._routing, pack._meter.charge, pack._bench.alone, at_once)
        started = time.perf_counter()
        found = judging.reports(pack._ground, seated, panel)
        seconds = time.perf_counter() - started
        return seconds, [report.metrics for report in found.values()]
    finally:
        pack.close()


def _apart(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]]) -> float:
    """The largest relative distance of a mean; spreads of images that hardly differ are noise."""
    names = [name for name in theirs[0] if not name.endswith("_std")]
    pairs = [(one[name], other[name]) for one, other in zip(ours, theirs, strict=True) for name in names]
    return max(abs(one - other) / abs(other) for one, other in pairs if other)


def measured() -> tuple[dict[int, list[float]], dict[int, list[float]], list[float], float]:
    """By images at once: ratios and seconds; seconds of one after another; how far apart metrics are."""
    trainer, contexts = _trainer()
    _one_after_another(trainer, contexts[:1])  # networks are loaded, shapes are known
    for size in AT_ONCE:
        _together(trainer, contexts, size)
    ratios: dict[int, list[float]] = {size: [] for size in AT_ONCE}
    seconds: dict[int, list[float]] = {size: [] for size in AT_ONCE}
    alone, far = [], 0.0
    for _ in range(RUNS):
        took, wanted = _one_after_another(trainer, contexts)
        alone.append(took)
        for size in AT_ONCE:
            packed, found = _together(trainer, contexts, size)
            seconds[size].append(packed)
            ratios[size].append(took / packed)
            far = max(far, _apart(found, wanted))
        said = ", ".join(f"{seconds[size][-1]:.2f} s with {size}" for size in AT_ONCE)
        print(f"{took:.2f} s one after another, together {said} images at once; metrics {far:.1e} apart", flush=True)
    return ratios, seconds, alone, far


def main() -> None:
    ratios, seconds, alone, far = measured()
    first, *others = AT_ONCE
    more = ", ".join(f"{size}: {statistics.median(ratios[size]):.2f}" for size in others)
    where = f"tiny-sd at 64 px, {len(IMAGES)} adapters, {N_IMAGES} images each in {STEPS} steps, {THREADS} threads"
    took = f"{statistics.median(alone):.2f} s one after another, {statistics.median(seconds[first]):.2f} s together"
    common.write(
        "packing_evaluation",
        [
            common.result(
                "packed_evaluation_ratio", measured=round(statistics.median(ratios[first]), 3), goal=None,
                unit="reports/s together / one after another", runs=RUNS,
                note=f"{where}; {took}, {first} images in one pass; with {more}",
            ),
            common.result(
                "packed_evaluation_equality", measured=float(f"{far:.3g}"), goal="<= 1e-4",
                unit="largest relative distance of a metric", runs=RUNS, note="the same reports, in fp32",
            ),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
