"""A model small enough for a hundred trainings a second, with every kind of layer that is adapted."""

import torch
from torch import nn

from trainables.lora.adapters import Adapter, LoraShape, Part
from trainables.lora.engine import LoraEngine
from trainables.lora.optimization import Optimization
from trainables.lora.settings import EngineSettings
from trainables.lora.targets import Targets

TARGETS = Targets(("to_q", "to_k", "proj_in"), ("conv1",))


class Small(nn.Module):
    """A convolution, a 1x1 convolution and two linear layers, (N, 4, 6, 6) to (N, 4)."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 8, 3, padding=1)
        self.proj_in = nn.Conv2d(8, 16, 1, bias=False)
        self.to_q = nn.Linear(16, 96)
        self.to_k = nn.Linear(96, 4)

    def forward(self, x):
        x = self.proj_in(torch.tanh(self.conv1(x))).mean((2, 3))
        return self.to_k(torch.tanh(self.to_q(x)))


def small(seed=0):
    torch.manual_seed(seed)
    return Small().requires_grad_(False)


def part(model, rate=1e-2, rank=4, alpha=2.0, **options):
    return Part("model", model, rate, LoraShape(rank, alpha, **options), TARGETS)


def attached(model, rate=1e-2, seed=1, loraplus_ratio=1.0, **options):
    return Adapter([part(model, rate, **options)], loraplus_ratio=loraplus_ratio).attach(seed)


def engine_on(adapter, settings=None, total=10, **options):
    return LoraEngine([Optimization(adapter, settings or EngineSettings(), total, **options)])


def loss_of(model, index):
    generator = torch.Generator().manual_seed(index)
    x, y = torch.randn(8, 4, 6, 6, generator=generator), torch.randn(8, 4, generator=generator)
    return (model(x).float() - y).square().mean()


def train(engine, model, steps, accumulation=1):
    """Steps from a range; micro-batches are numbered through."""
    losses = []
    for step in steps:
        for index in range(accumulation):
            losses += engine.accumulate([loss_of(model, step * accumulation + index)], [1 / accumulation])
        engine.step()
    return losses
