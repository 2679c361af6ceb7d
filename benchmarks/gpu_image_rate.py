"""Stable Diffusion 1.5 at its real size on a GPU: steps a second, memory and share of the device's matrix peak, beside
the plain loop of diffusers and peft. Weights are random, from the shipped configuration: speed does not depend on them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import common
from benchmarks.image_step_rate import PARAMS
from benchmarks.plain_diffusion import PlainLora
from trainables import demo_character
from trainables.diffusion_lora import DiffusionLora, ImageEvaluation
from trainables.lora import course, trial
from trainables.lora.image_session import ImageSession, session_for
from trainables.lora.image_task import ImageTask
from trainables.protocol import TrialContext

BATCHES = (1, 4)
SIDE, RANK, IMAGES = 512, 16, 16
WIDTH = 8192  # of the square matrices whose product says what the device can do


def random_pipeline(folder: Path) -> Path:
    """A pipeline of SD 1.5's shapes with random weights, saved in bf16."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    from trainables.lora.base_configs import config_folder
    from trainables.lora.base_weights import _empty

    config = config_folder("sd15")
    parts = {}
    for name in ("unet", "vae", "text_encoder"):
        model = _empty(name, config).to_empty(device="cpu").to(torch.bfloat16)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        parts[name] = model
    pipeline = StableDiffusionPipeline(
        **parts, tokenizer=CLIPTokenizer.from_pretrained(str(config / "tokenizer")),
        scheduler=PNDMScheduler.from_pretrained(str(config / "scheduler")), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def session_on(base: str, images: Path, side: int, batch_size: int, precision: str) -> tuple[Any, ...]:
    """Trainer, context and session for one size of batch."""
    settings = {"resolution": side, "batch_size": batch_size, "shuffle_caption": False, "flip": False}
    trainer = DiffusionLora(
        base, str(images), settings, evaluation=ImageEvaluation(n_images=2, steps=2), precision=precision
    )
    params = PARAMS | {"network_dim": RANK, "network_alpha": RANK}
    context = TrialContext(params, Path(tempfile.mkdtemp(prefix="bench-")), threads=torch.get_num_threads())
    return trainer, context, session_for(trainer, context)


def ours(trainer: DiffusionLora, context: TrialContext, session: ImageSession, steps: int) -> float:
    """Seconds a step of the trainer's own loop."""
    task = ImageTask(trainer, session, context)
    try:
        running = trial.Trial(task, task.engine, context, course.Course(1000, "epoch"))
        running.train()

        def train() -> int:
            before = task.engine.lanes[0].step_count
            while task.engine.lanes[0].step_count - before < steps:
                running.train()
            return task.engine.lanes[0].step_count - before

        return _seconds_each(train)
    finally:
        task.close()


def plain(session: ImageSession, side: int, batch_size: int, steps: int) -> float:
    """Seconds a step of the plain loop, whose autoencoder is in half precision, too, as in the example."""
    session.base.vae.to(session.base.unet.dtype)
    loop = PlainLora(session.base, session.data.train, resolution=side, batch_size=batch_size, rank=RANK, steps=10_000)
    try:
        batches = loop.batches()

        def train() -> int:
            for _ in range(steps):
                loop.step(next(batches))
            return steps

        train()
        return _seconds_each(train)
    finally:
        loop.detach()
        session.base.vae.float()


def _seconds_each(train: Callable[[], int]) -> float:
    _wait()
    started = time.perf_counter()
    done = train()
    _wait()
    return (time.perf_counter() - started) / done


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def step_flops(trainer: DiffusionLora, context: TrialContext, session: ImageSession) -> float:
    """Floating-point operations of one step's products, forward and backward, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    task = ImageTask(trainer, session, context)
    try:
        batch = task.steps(1)[0][0]
        with FlopCounterMode(display=False) as counter:
            task.engine.accumulate([task.loss(batch)], [1.0])
        return float(counter.get_total_flops())
    finally:
        task.close()


def matrix_peak() -> float:
    """Floating-point operations a second of a large bf16 product on this device."""
    left, right = (torch.randn(WIDTH, WIDTH, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def multiply() -> int:
        for _ in range(20):
            left @ right
        return 20

    multiply()
    return 2 * WIDTH**3 / _seconds_each(multiply)


def _figures(folder: Path, runs: int, steps: int) -> list[dict[str, Any]]:
    images = folder / "images"
    demo_character.write_dataset(images, count=IMAGES)
    base, peak, results = str(random_pipeline(folder / "base")), matrix_peak(), []
    for batch_size in BATCHES:
        trainer, context, session = session_on(base, images, SIDE, batch_size, "bf16")
        torch.cuda.reset_peak_memory_stats()
        mine = [ours(trainer, context, session, steps) for _ in range(runs)]
        memory = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
        theirs = [plain(session, SIDE, batch_size, steps) for _ in range(runs)]
        plain_memory = torch.cuda.max_memory_allocated() / 2**30
        seconds, share = statistics.median(mine), step_flops(trainer, context, session) / statistics.median(mine) / peak
        ratio = statistics.median(slow / fast for slow, fast in zip(theirs, mine, strict=True))
        results.append(
            common.result(
                f"gpu_image_rate_batch_{batch_size}", measured=round(1 / seconds, 2), goal=None, unit="steps/s",
                runs=runs, note=f"SD 1.5 shapes, {SIDE} px, bf16: {ratio:.2f} times the plain loop; at most "
                f"{memory:.1f} GiB (plain: {plain_memory:.1f}); {100 * share:.0f}% (plain: {100 * share / ratio:.0f}%) "
                f"of the {peak / 1e12:.0f} TFLOP/s of a large product",
            )
        )  # fmt: skip
    return results


def main() -> None:
    if not torch.cuda.is_available():
        note = "needs a GPU; there was none"
        common.write(
            "gpu_image_rate",
            [common.result("gpu_image_rate", measured=None, goal=None, unit="steps/s", runs=0, note=note)],
        )
        return
    runs, steps = (1, 5) if common.QUICK else (5, 30)
    with tempfile.TemporaryDirectory() as folder:
        common.write("gpu_image_rate", _figures(Path(folder), runs, steps))


if __name__ == "__main__":
    main()
