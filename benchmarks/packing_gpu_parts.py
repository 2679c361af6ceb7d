"""What `benchmarks.packing_gpu` measures, each part in a process of its own, so that a part that runs out of memory or
crashes takes no other along, and memory is that of the part alone.

Seconds are those of one micro-batch of every trial of the part. The same code runs on a CPU, with a small base.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks import together
from benchmarks.packing_cases import IMAGE, SHARED, solo
from benchmarks.together import FAILED, Span
from trainables.diffusion_lora import DiffusionLora, ImageEvaluation
from trainables.lora.safety import out_of_memory_is_a_cause
from trainables.protocol import TrialContext, TrialFailure

RANKS = (16, 32, 64, 128)
"""Of the trials, in turn."""
WARM = 5
REPEATS = 1000
"""An epoch is longer than any part, so that nobody reports."""

Found = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """On what is measured: the device, folders of the base and of the images, pixels, and how often."""

    device: str
    base: str
    images: str
    side: int
    runs: int
    steps: int
    matrix: int

    def text(self) -> str:
        """As one line that `json.loads` reads."""
        return json.dumps(asdict(self), sort_keys=True)


def trainer_for(setup: Setup, batch: int) -> DiffusionLora:
    """Trains in bf16."""
    settings = {"resolution": setup.side, "batch_size": batch, "repeats": REPEATS}
    evaluation = ImageEvaluation(n_images=2, steps=2)
    return DiffusionLora(setup.base, setup.images, settings, evaluation=evaluation, precision="bf16")


def context_for(batch: int, number: int) -> TrialContext:
    """One of the trials: attention and feed-forward layers of denoiser and text encoder, AdamW, clipped."""
    rank = RANKS[number % len(RANKS)]
    params = {**IMAGE, "network_dim": rank, "network_alpha": rank / 2, "train_batch_size": batch}
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    return TrialContext(params, folder, seed=number, threads=torch.get_num_threads(), shared=SHARED)


@contextmanager
def alone(trainer: DiffusionLora, context: TrialContext) -> Iterator[tuple[Callable[[], None], Any]]:
    """The step of a trial by itself, and its task."""
    task, trial = solo(trainer, context)

    def step() -> None:
        micro = trial.next()
        trial.learnt(task.engine.accumulate([task.loss(micro.batch)], [micro.share], [micro.part])[0])

    try:
        yield step, task
    finally:
        task.close()


@contextmanager
def packed(trainer: DiffusionLora, contexts: Sequence[TrialContext]) -> Iterator[Callable[[], object]]:
    """The step of a pack of them."""
    pack = trainer.pack(contexts[0])

    def step() -> None:
        if failures := pack.step().failures:
            raise next(iter(failures.values()))

    try:
        for context in contexts:
            pack.join(context)
        yield step
    finally:
        pack.close()


def seconds(step: Callable[[], object], steps: int) -> float:
    """Of one step, after a few that do not count."""
    for _ in range(min(WARM, steps)):
        step()
    begin, end = together.timed(step, steps, wait)
    return (end - begin) / steps


def wait() -> None:
    """Until the device is through."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes() -> int:
    """The most that was held at a time: of the device's memory since `forget_peak`, on a CPU by the process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return int(psutil.Process().memory_info().rss)


def forget_peak() -> None:
    """Begins anew."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def used_bytes() -> int:
    """What everybody together holds of the device's memory now; on a CPU, this process."""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return int(total - free)
    return int(psutil.Process().memory_info().rss)


# --- the parts -------------------------------------------------------------------------------------------------------


def peak(setup: Setup) -> Found:
    """Operations a second of a large bf16 product."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(setup.matrix, setup.matrix, device=device, dtype=torch.bfloat16) for _ in range(2))
    return {"flops": 2 * setup.matrix**3 / seconds(lambda: left @ right, 20)}


def flops(setup: Setup, batch: int) -> Found:
    """Operations of one sample's products, forward and backward, by torch's own count; the mean over the ranks."""
    from torch.utils.flop_counter import FlopCounterMode

    counts = []
    for number in range(len(RANKS)):
        with alone(trainer_for(setup, batch), context_for(batch, number)) as (step, _):
            step()  # what is found once, such as known captions, is not part of a step
            with FlopCounterMode(display=False) as counter:
                step()
            counts.append(counter.get_total_flops() / batch)
    return {"flops": statistics.mean(counts)}


def pack(setup: Setup, batch: int, count: int) -> Found:
    """A pack, and its trials one after another, in turns; memory of the pack."""
    trainer = trainer_for(setup, batch)
    contexts = [context_for(batch, number) for number in range(count)]
    found: Found = {"alone": [], "packed": []}
    for _ in range(setup.runs):
        each = []
        for context in contexts[: len(RANKS)]:  # the others are as these
            with alone(trainer, context) as (step, _):
                each.append(seconds(step, setup.steps))
        found["alone"].append(statistics.mean(each) * count)
        forget_peak()
        with packed(trainer, contexts) as step:
            found["packed"].append(seconds(step, setup.steps))
            found |= {"peak": peak_bytes(), "used": used_bytes()}
    return found


def compiled(setup: Setup, batch: int, how: str) -> Found:
    """A trial whose denoiser is compiled, with CUDA graphs where `how` is ``reduce-overhead``, and the same trial as it
    is, in turns."""
    found: Found = {"alone": [], "compiled": []}
    chosen: Mapping[str, Any] = {"mode": how} if torch.cuda.is_available() else {"backend": how}
    with alone(trainer_for(setup, batch), context_for(batch, 0)) as (step, task):
        unet = task.session.base.unet
        unet.compile(dynamic=False, **chosen)
        fast = unet._compiled_call_impl  # torch has no other way back
        try:
            for _ in range(setup.runs):
                unet._compiled_call_impl = None
                found["alone"].append(seconds(step, setup.steps))
                unet._compiled_call_impl = fast
                found["compiled"].append(seconds(partial(_after_mark, step), setup.steps))
        finally:
            unet._compiled_call_impl = None
    return found


def _after_mark(step: Callable[[], None]) -> None:
    """Tells CUDA graphs that what the last step gave is no longer needed."""
    torch.compiler.cudagraph_mark_step_begin()
    step()


def wide(setup: Setup, batch: int) -> Found:
    """One trial with a large batch: what this device and this code give where overhead hardly counts."""
    with alone(trainer_for(setup, batch), context_for(batch, 0)) as (step, _):
        times = [seconds(step, setup.steps) for _ in range(setup.runs)]
        return {"alone": times, "batch": batch, "peak": peak_bytes()}


def worker(setup: Setup, batch: int, number: int) -> None:
    """One of several processes, each with a trial of its own (`together.serve`)."""
    with alone(trainer_for(setup, batch), context_for(batch, number)) as (step, _):

        def train(steps: int) -> tuple[list[Span], float]:
            for _ in range(WARM):
                step()
            span = together.timed(step, steps, wait)
            return [span], together.go_on(step)

        together.serve(train, used_bytes)


PARTS: Mapping[str, Callable[..., Found | None]] = {
    "peak": peak,
    "flops": flops,
    "pack": pack,
    "compiled": compiled,
    "wide": wide,
    "worker": worker,
}


def main(arguments: Sequence[str]) -> None:
    """A setup, the name of a part and what it takes; prints what was found as the last line."""
    setup, name, *rest = arguments
    try:
        with out_of_memory_is_a_cause():
            found = PARTS[name](Setup(**json.loads(setup)), *(int(one) if one.isdigit() else one for one in rest))
    except TrialFailure as failure:
        print(FAILED + f"{failure.cause}: {failure.message}", flush=True)
        return
    if found is not None:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
