"""Step throughput of the image trainer beside a plain loop of diffusers and peft on the same weights and images, and
what a trial costs to start on a worker that has already run one.

The plain loop is diffusers' own LoRA example without its launcher: it opens, encodes and tokenizes at every step. Both
train the same layers at the same rank, batch by batch, taking turns; threads are one on both sides.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import common

BATCHES = (1, 4, 16)
RANK, RESOLUTION = 8, 64
PARAMS = {
    "network_dim": RANK,
    "network_alpha": RANK,
    "learning_rate": 1e-4,
    "max_train_epochs": 1000,
    "network_targets": "attention",
}


def _context(batch_size: int, shared: dict[str, Any], **changes: Any) -> tuple[Any, Any]:
    from trainables.diffusion_lora import DiffusionLora, ImageEvaluation
    from trainables.protocol import TrialContext

    data = str(common.data_folder() / "fluent3d" / "character")
    # The plain loop shows captions as they stand.
    settings = {"resolution": RESOLUTION, "batch_size": batch_size, "shuffle_caption": False, "flip": False}
    trainer = DiffusionLora("tiny-sd", data, settings, evaluation=ImageEvaluation(n_images=2, steps=2))
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    return trainer, TrialContext(PARAMS | changes, folder, threads=1, shared=shared)


def _ours(trainer: Any, context: Any, least: int) -> float:
    """Seconds a step of the trainer's own loop, over at least so many steps."""
    from trainables.lora import course, trial
    from trainables.lora.image_session import session_for
    from trainables.lora.image_task import ImageTask

    task = ImageTask(trainer, session_for(trainer, context), context)
    try:
        running = trial.Trial(task, task.engine, context, course.Course(1000, "epoch"))
        running.train()
        before, started = task.engine.lanes[0].step_count, time.perf_counter()
        while (done := task.engine.lanes[0].step_count - before) < least:
            running.train()
        return (time.perf_counter() - started) / done
    finally:
        task.close()


def _plain(trainer: Any, context: Any, batch_size: int, steps: int) -> float:
    from benchmarks.plain_diffusion import PlainLora
    from trainables.lora.image_session import session_for

    session = session_for(trainer, context)
    loop = PlainLora(
        session.base, session.data.train, resolution=RESOLUTION, batch_size=batch_size, rank=RANK, steps=10_000
    )  # fmt: skip
    try:
        batches = loop.batches()
        for _ in range(3):
            loop.step(next(batches))
        started = time.perf_counter()
        for _ in range(steps):
            loop.step(next(batches))
        return (time.perf_counter() - started) / steps
    finally:
        loop.detach()


def _rates(runs: int, steps: int) -> dict[int, list[float]]:
    """By batch size, how many times faster the trainer steps, once a run."""
    ratios: dict[int, list[float]] = {}
    for batch_size in BATCHES:
        trainer, context = _context(batch_size, {})
        for _ in range(runs):
            ours, plain = _ours(trainer, context, steps), _plain(trainer, context, batch_size, steps)
            ratios.setdefault(batch_size, []).append(plain / ours)
            print(f"batch {batch_size}: {ours * 1e3:.1f} ms ours, {plain * 1e3:.1f} ms plain", flush=True)
    return ratios


def _starts() -> tuple[float, float]:
    """Seconds from the start of a trial to its first step: the first of a worker, and the second."""
    shared: dict[str, Any] = {}
    seconds = []
    for rate in (1e-4, 2e-4):
        trainer, context = _context(4, shared, learning_rate=rate, max_train_epochs=1)
        started = time.perf_counter()
        from trainables.lora.image_session import session_for
        from trainables.lora.image_task import ImageTask

        task = ImageTask(trainer, session_for(trainer, context), context)
        task.steps(1)
        seconds.append(time.perf_counter() - started)
        task.close()
    return seconds[0], seconds[1]


def _starts_of_a_worker() -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.image_step_rate", "starts"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout
    first, second = json.loads(output.splitlines()[-1])
    return first, second


def _figures(ratios: Mapping[int, list[float]], starts: list[tuple[float, float]]) -> list[dict[str, Any]]:
    medians = {batch_size: statistics.median(found) for batch_size, found in ratios.items()}
    mean = math.exp(statistics.fmean(math.log(value) for value in medians.values()))
    by_batch = ", ".join(f"batch {batch_size}: {value:.2f}" for batch_size, value in medians.items())
    warm = statistics.median(second / first for first, second in starts)
    first, second = (statistics.median(start[index] for start in starts) for index in (0, 1))
    runs = len(ratios[BATCHES[0]])
    unit = "plain loop's seconds a step / ours"
    return [
        common.result(
            "image_step_rate_ratio", measured=round(mean, 3), goal=">= 1.3", unit=unit, runs=runs,
            note=f"tiny-sd at {RESOLUTION} px, one thread, geometric mean of {by_batch}",
        ),
        common.result(
            "image_step_rate_least", measured=round(min(medians.values()), 3), goal=">= 1", unit=unit, runs=runs,
            note="the smallest of them",
        ),
        common.result(
            "warm_start_ratio", measured=round(warm, 4), goal="<= 0.1", unit="second trial / first", runs=len(starts),
            note=f"to the first step on one worker: {first:.1f} s, then {second:.2f} s; latents were on disk for both",
        ),
    ]  # fmt: skip


def main() -> None:
    runs, steps = (1, 10) if common.QUICK else (5, 60)
    _starts_of_a_worker()  # fills the cache of latents
    starts = [_starts_of_a_worker() for _ in range(runs)]
    common.write("image_step_rate", _figures(_rates(runs, steps), starts))


if __name__ == "__main__":
    if sys.argv[1:] == ["starts"]:
        print(json.dumps(_starts()))
    else:
        main()
