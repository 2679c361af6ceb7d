"""Ten steps of the engine beside ten of a plain peft and torch loop, on tiny-sd: every optimizer, accumulation 1 and
3, restored in the middle and not."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import common, plain_engine
from trainables.lora import base as bases
from trainables.lora.adapters import Adapter, LoraShape, Part
from trainables.lora.choices import OPTIMIZERS
from trainables.lora.engine import LoraEngine
from trainables.lora.optimization import Optimization
from trainables.lora.settings import EngineSettings
from trainables.lora.targets import UNET

STEPS, WARMUP, NORM = 10, 3, 0.8
RATES = {"Prodigy": 10.0}  # its rate multiplies a step size that it finds, which starts at a millionth
RATE = 1e-3
RANK, ALPHA = 8, 5.0  # a scale that is no power of two, which would round alike wherever it is multiplied
ROUNDING = ("AdamW8bit", "Lion")
"""They round, so the loss curve is compared in place of the weights."""

Loss = Callable[[int], torch.Tensor]


def _loss_on(unet: torch.nn.Module, width: int) -> Loss:
    def loss(index: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(index)
        noisy = torch.randn(2, 4, 16, 16, generator=generator)
        states = torch.randn(2, 16, width, generator=generator)
        wanted = torch.randn(noisy.shape, generator=generator)
        times = torch.randint(1000, (2,), generator=generator)
        return (unet(noisy, times, states, return_dict=False)[0] - wanted).square().mean()

    return loss


def _adapter(unet: torch.nn.Module, optimizer: str) -> Adapter:
    return Adapter([Part("unet", unet, RATES.get(optimizer, RATE), LoraShape(RANK, ALPHA), UNET["all"])]).attach(0)


def _plain(unet: torch.nn.Module, start: dict[str, torch.Tensor], optimizer: str, accumulation: int):  # type: ignore[no-untyped-def]
    """Losses and weights of the plain loop."""
    plain_engine.with_peft(unet, UNET["all"].ends, RANK, ALPHA)
    plain_engine.take_weights(unet, start)
    loss = _loss_on(unet, unet.config.cross_attention_dim)
    seen = plain_engine.train(
        [lambda index=index: loss(index) for index in range(STEPS * accumulation)],
        [{"params": plain_engine.parameters(unet), "lr": RATES.get(optimizer, RATE)}],
        name=optimizer, steps=STEPS, accumulation=accumulation, max_norm=NORM, warmup=WARMUP,
    )  # fmt: skip
    weights = plain_engine.weights(unet)
    from diffusers.utils.peft_utils import recurse_remove_peft_layers

    recurse_remove_peft_layers(unet)
    return seen, weights


def _ours(unet: torch.nn.Module, optimizer: str, accumulation: int, *, restored: bool):  # type: ignore[no-untyped-def]
    """Start, losses and weights of the engine; `restored` goes through a checkpoint into a new engine half-way."""
    settings = EngineSettings(
        optimizer, lr_warmup_steps=WARMUP, gradient_accumulation_steps=accumulation, max_grad_norm=NORM
    )  # fmt: skip
    loss, adapter = _loss_on(unet, unet.config.cross_attention_dim), _adapter(unet, optimizer)
    start, seen = adapter.state(), []
    engine = LoraEngine([Optimization(adapter, settings, STEPS)])
    for step in range(STEPS):
        if restored and step == STEPS // 2:
            with tempfile.TemporaryDirectory() as folder:
                engine.save(Path(folder))
                adapter.detach()
                adapter = _adapter(unet, optimizer)
                engine = LoraEngine([Optimization(adapter, settings, STEPS)])
                engine.restore(Path(folder))
        for part in range(accumulation):
            seen += engine.accumulate([loss(step * accumulation + part)], [1 / accumulation])
        engine.step()
    weights = adapter.state()
    adapter.detach()
    return _short(start), seen, _short(weights)


def _short(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("unet."): value for name, value in state.items()}


def main() -> None:
    torch.set_num_threads(1)
    unet = bases.load("tiny-sd", torch.device("cpu")).unet
    weights_apart, losses_apart, cases = 0.0, 0.0, 0
    chosen = OPTIMIZERS[:2] if common.QUICK else OPTIMIZERS
    for optimizer, accumulation, restored in itertools.product(chosen, (1, 3), (False, True)):
        start, losses, ours = _ours(unet, optimizer, accumulation, restored=restored)
        plain_losses, theirs = _plain(unet, start, optimizer, accumulation)
        loss = max(abs(a - b) for a, b in zip(losses, plain_losses, strict=True))
        weight = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
        assert max(float((ours[name] - start[name]).abs().max()) for name in ours) > RATE / 10, "nothing was trained"
        print(
            f"{optimizer}, accumulation {accumulation}, {restored=}: losses {loss:.1e}, weights {weight:.1e}",
            flush=True,
        )
        cases += 1
        if optimizer in ROUNDING:
            losses_apart = max(losses_apart, loss)
        else:
            weights_apart = max(weights_apart, weight, loss)
    common.write(
        "engine_equality",
        [
            common.result(
                "engine_equality", measured=float(f"{weights_apart:.3g}"), goal="<= 1e-5", unit="largest difference",
                runs=cases, note="losses and adapter weights after ten steps; AdamW, Adafactor and Prodigy in fp32",
            ),
            common.result(
                "engine_equality_rounding", measured=float(f"{losses_apart:.3g}"), goal="<= 1e-3",
                unit="largest difference of a loss", runs=cases, note="AdamW8bit and Lion of bitsandbytes",
            ),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
