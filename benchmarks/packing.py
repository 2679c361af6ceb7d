"""Packed trials against the same trials alone: equality after 50 steps, samples per second, memory.

Packed and alone take turns, at the same threads, on the same base and data; what is compared are medians of paired
runs. `packed_memory_ratio` compares one process that holds eight trials with eight processes that hold one each, by
memory in proportion to who shares it (Pss), so that mapped weights and libraries are not counted eight times.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import common
from benchmarks.packing_cases import EIGHT_BIT, IMAGES, OPTIMIZERS, TEXTS, images_on, solo, text_on, text_trainer

THREADS = 2
STEPS = 10 if common.QUICK else 50


def _apart(ours: dict[str, Any], theirs: dict[str, Any], start: dict[str, Any]) -> float:
    """Distance of two updates, as a share of the second's length (L2)."""
    distance = sum(float((ours[name] - theirs[name]).square().sum()) for name in ours) ** 0.5
    return distance / sum(float((theirs[name] - start[name]).square().sum()) for name in ours) ** 0.5


def _hook(seen: list[tuple[Any, Any]]) -> Callable[[Any, tuple[Any, ...]], None]:
    return lambda _, given: seen.append((given[0].clone(), given[1].clone()))


def _alone(trainer: Any, context: Any, steps: int) -> tuple[dict[str, Any], dict[str, Any], list[float], list[Any]]:
    """Adapter before and after so many optimizer steps, losses, and what the denoiser was shown."""
    task, trial = solo(trainer, context)
    shown: list[tuple[Any, Any]] = []
    hook = task.session.base.unet.register_forward_pre_hook(_hook(shown))
    start, losses = task.adapter.state(), []
    while trial.lane.step_count < steps:
        micro = trial.next()
        losses += task.engine.accumulate([task.loss(micro.batch)], [micro.share], [micro.part])
        trial.learnt(losses[-1])
    hook.remove()
    end = task.adapter.state()
    task.close()
    return start, end, losses, shown


def _packed(trainer: Any, contexts: Sequence[Any], steps: int) -> list[tuple[dict[str, Any], list[float], list[Any]]]:
    """The same of a pack in which a trial joins at every second step, and leaves when it has its steps."""
    pack = trainer.pack(contexts[0])
    shown: list[tuple[Any, Any]] = []
    hook = pack._ground.session.base.unet.register_forward_pre_hook(_hook(shown))
    waiting, seats, found = list(enumerate(contexts)), {}, {}
    number = 0
    while waiting or pack.slots:
        if waiting and number % 2 == 0:
            index, context = waiting.pop(0)
            seats[pack.join(context)] = (index, [], [])
        order = sorted(pack._slots.values(), key=lambda slot: (slot.likeness, slot.number))
        shown.clear()
        stepped = pack.step()
        if stepped.failures:
            raise SystemExit(f"a trial failed: {stepped.failures}")
        for place, slot in enumerate(order):  # batch 1: a row each
            _, losses, rows = seats[slot.number]
            losses.append(stepped.losses[slot.number])
            rows.append((shown[0][0][place : place + 1], shown[0][1][place : place + 1]))
            if slot.trial.lane.step_count == steps:
                index = seats[slot.number][0]
                found[index] = (slot.task.adapter.state(), losses, rows)
                pack.leave(slot.number)
        number += 1
    hook.remove()
    return [found[index] for index in range(len(contexts))]


def _equality(precision: str) -> dict[str, float]:
    """The largest distances over all optimizers, and how many batches were not the same to the bit."""
    import torch

    torch.set_default_dtype(torch.float64 if precision == "fp64" else torch.float32)
    try:
        cases = {name: case for name, case in OPTIMIZERS.items() if precision == "fp32" or not case["rounds"]}
        trainer, contexts = images_on([case["params"] for case in cases.values()], threads=1)
        if precision == "fp64":
            _doubled(trainer, contexts[0])
        worst = {"weights": 0.0, "losses": 0.0, "batches": 0.0}
        together = _packed(trainer, contexts, STEPS)
        for (name, case), context, (state, losses, rows) in zip(cases.items(), contexts, together, strict=True):
            start, wanted, alone, shown = _alone(trainer, context, STEPS)
            far = _apart(state, wanted, start)
            curve = max(abs(one - other) / abs(other) for one, other in zip(losses, alone, strict=True))
            pairs = zip(rows, shown, strict=True)
            other_rows = sum(not (torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])) for a, b in pairs)
            print(f"{precision} {name}: update {far:.1e}, losses {curve:.1e}, other batches {other_rows}", flush=True)
            worst["batches"] += other_rows
            kind = "losses" if case["rounds"] else "weights"
            worst[kind] = max(worst[kind], curve if case["rounds"] else far)
        return worst
    finally:
        torch.set_default_dtype(torch.float32)


def _doubled(trainer: Any, context: Any) -> None:
    from trainables.lora.image_session import session_for

    base = session_for(trainer, context).base
    for model in base.models.values():
        model.double()


def _rate(step: Callable[[], object], steps: int) -> float:
    started = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - started) / steps


def _seconds(trainer: Any, contexts: Sequence[Any], steps: int) -> tuple[float, float]:
    """Seconds of one micro-batch of every trial: one trial after another, and packed."""
    alone = 0.0
    for context in contexts:
        task, trial = solo(trainer, context)

        def one(task: Any = task, trial: Any = trial) -> None:
            micro = trial.next()
            trial.learnt(task.engine.accumulate([task.loss(micro.batch)], [micro.share], [micro.part])[0])

        try:
            _rate(one, 1)
            alone += _rate(one, steps)
        finally:
            task.close()
    pack = trainer.pack(contexts[0])
    for context in contexts:
        pack.join(context)
    _rate(pack.step, 1)
    packed = _rate(pack.step, steps)
    pack.close()
    return alone, packed


def _ratio(trainer: Any, contexts: Sequence[Any], runs: int, steps: int) -> tuple[float, str]:
    pairs = []
    for _ in range(runs):
        pairs.append(_seconds(trainer, contexts, steps))
        alone, packed = pairs[-1]
        print(f"K={len(contexts)}: {alone * 1e3:.0f} ms alone, {packed * 1e3:.0f} ms packed", flush=True)
    ratio = statistics.median(alone / packed for alone, packed in pairs)
    alone, packed = (statistics.median(pair[index] for pair in pairs) for index in (0, 1))
    return ratio, f"{alone * 1e3:.0f} ms one after another, {packed * 1e3:.0f} ms packed, a micro-batch of each trial"


def _figures() -> list[dict[str, Any]]:
    from benchmarks.packing_memory import peaks

    single, double = _equality("fp32"), _equality("fp64")
    runs, steps = (1, 3) if common.QUICK else (3, 12)
    by_size = {count: _ratio(*images_on(IMAGES[:count], threads=THREADS), runs, steps) for count in (4, 8)}
    eight_bit, bits_said = _ratio(*images_on(EIGHT_BIT, threads=THREADS), runs, steps)
    (k8, said), others = by_size.pop(8), ", ".join(f"K={count}: {ratio:.2f}" for count, (ratio, _) in by_size.items())
    llm, llm_said = _ratio(*text_on(text_trainer(), TEXTS, threads=THREADS), runs, 3)
    eight, packed = peaks()
    far = f"AdamW, Adafactor, Prodigy, {STEPS} optimizer steps, mixed ranks and accumulations, joining and leaving"
    where = f"tiny-sd at 64 px, batch 1, {THREADS} threads"
    batches = int(single["batches"] + double["batches"])
    return [
        common.result(
            "packed_equality", measured=float(f"{single['weights']:.3g}"), goal="<= 1e-4",
            unit="largest relative distance of an update (L2)", runs=1, note=f"fp32; {far}",
        ),
        common.result(
            "packed_equality_fp64", measured=float(f"{double['weights']:.3g}"), goal="<= 1e-10",
            unit="largest relative distance of an update (L2)", runs=1, note=f"fp64; {far}",
        ),
        common.result(
            "packed_equality_rounding", measured=float(f"{single['losses']:.3g}"), goal="<= 1e-3",
            unit="largest relative distance of a loss", runs=1, note=f"AdamW8bit and Lion, {STEPS} optimizer steps",
        ),
        common.result(
            "packed_equality_batches", measured=batches, goal="<= 0", unit="micro-batches that differ in any bit",
            runs=1, note="noisy latents and timesteps as the denoiser is shown them, every optimizer",
        ),
        common.result(
            "packed_k8_ratio", measured=round(k8, 3), goal=">= 2", unit="samples/s packed / one after another",
            runs=runs, note=f"{where}, K=8: {said}; {others}",
        ),
        common.result(
            "packed_k8_8bit_ratio", measured=round(eight_bit, 3), goal=None,
            unit="samples/s packed / one after another", runs=runs,
            note=f"the same with AdamW8bit in every other trial: {bits_said}",
        ),
        common.result(
            "packed_memory_ratio", measured=round(packed / eight, 3), goal="<= 0.3333",
            unit="peak memory, packed / 8 processes", runs=1,
            note=f"tiny-sd, K=8: {packed:.0f} MiB against {eight:.0f} MiB (Pss, Python and libraries included)",
        ),
        common.result(
            "packed_llm_ratio", measured=round(llm, 3), goal=">= 1.5", unit="samples/s packed / one after another",
            runs=runs,
            note=f"SmolLM2-135M's shapes, random weights, sequence 128, batch 1, {THREADS} threads, K=4: {llm_said}",
        ),
    ]  # fmt: skip


def main() -> None:
    common.write("packing", _figures())


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        from benchmarks.packing_memory import child

        child(sys.argv[2])
    else:
        main()
