"""K copies of a few multilayer perceptrons in one pass: every weight has a first dimension of K, the *lane*.

Lanes never meet, so each lane is what it would be alone. All weights of all lanes are one ``(K, P)`` tensor, which
makes an optimizer step a handful of operations however many layers there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

MOMENTUM = 0.1
"""Of batch norm's running statistics, torch's default."""
_EPSILON = 1e-5
Views = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Mlp:
    """A perceptron: `widths` from inputs to outputs. Hidden layers are linear, batch norm (`norm`), ReLU, dropout; the
    last layer is linear. `input_dropout` leaves inputs out."""

    name: str
    widths: tuple[int, ...]
    dropout: float = 0.0
    norm: bool = False
    input_dropout: float = 0.0

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return self.widths[1:-1]

    @property
    def drops(self) -> dict[int, float]:
        """Share that is left out of what a layer is given, by layer."""
        rates = {0: self.input_dropout} | dict.fromkeys(range(1, len(self.widths) - 1), self.dropout)
        return {index: rate for index, rate in rates.items() if rate}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Weights of one lane by name."""
        found: dict[str, tuple[int, ...]] = {}
        for index, (inputs, outputs) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            found[f"{self.name}.{index}.weight"] = (inputs, outputs)
            found[f"{self.name}.{index}.bias"] = (outputs,)
            if self.norm and index < len(self.hidden):
                found[f"{self.name}.{index}.norm.weight"] = (outputs,)
                found[f"{self.name}.{index}.norm.bias"] = (outputs,)
        return found

    def stat_shapes(self) -> dict[str, tuple[int, ...]]:
        """Batch norm's running mean and variance by name; they are not trained."""
        names = [f"{self.name}.{index}.norm" for index in range(len(self.hidden) if self.norm else 0)]
        return {
            f"{name}.{which}": (self.hidden[index],) for index, name in enumerate(names) for which in ("mean", "var")
        }


class Stack:
    """K lanes of `nets`. `weights` is ``(K, P)``, `stats` ``(K, S)``."""

    def __init__(self, nets: Sequence[Mlp], weights: torch.Tensor, stats: torch.Tensor) -> None:
        self.nets = {net.name: net for net in nets}
        self.weights, self.stats = weights, stats
        self._shapes = {name: shape for net in nets for name, shape in net.shapes().items()}
        self._stat_shapes = {name: shape for net in nets for name, shape in net.stat_shapes().items()}

    @classmethod
    def fresh(cls, nets: Sequence[Mlp], seeds: Sequence[Sequence[int]], dtype: torch.dtype) -> Stack:
        """Initialised as torch does linear layers: uniform within 1/sqrt(inputs). A lane's weights depend on its seed
        alone."""
        lanes = [_initial(nets, np.random.default_rng(list(seed))) for seed in seeds]
        stats = [
            1.0 * name.endswith(".var") for net in nets for name, (n,) in net.stat_shapes().items() for _ in range(n)
        ]
        return cls(
            nets,
            torch.from_numpy(np.stack(lanes)).to(dtype),
            torch.tensor(stats, dtype=dtype).repeat(len(seeds), 1),
        )

    @property
    def lanes(self) -> int:
        """K."""
        return len(self.weights)

    def views(self, weights: torch.Tensor) -> Views:
        """A ``(K, P)`` tensor as ``(K, ...)`` tensors by name; gradients flow through."""
        return _split(weights, self._shapes)

    def stat_views(self) -> Views:
        """Batch norm's running statistics by name, to be written into."""
        return _split(self.stats, self._stat_shapes) if self._stat_shapes else {}

    def places(self, net: str) -> torch.Tensor:
        """Which of the P weights are this network's, ``(P,)`` booleans."""
        return torch.cat(
            [torch.full((math.prod(shape),), name.startswith(net + ".")) for name, shape in self._shapes.items()]
        )

    def run(
        self,
        net: str,
        views: Views,
        x: torch.Tensor,
        keep: Mapping[int, torch.Tensor] | None = None,
        valid: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``(K, B, inputs)`` to ``(K, B, outputs)``.

        Args:
            net: name of one of the networks.
            views: of the weights.
            x: inputs.
            keep: scaled dropout masks ``(K, B, width)`` of what layers are given; None is evaluation.
            valid: ``(K, B)`` ones where a row is one, zeros where it fills up a batch; batch norm needs it in training.
        """
        mlp = self.nets[net]
        for index in range(len(mlp.widths) - 1):
            if keep is not None and index in keep:
                x = x * keep[index]
            x = torch.baddbmm(views[f"{net}.{index}.bias"].unsqueeze(1), x, views[f"{net}.{index}.weight"])
            if index == len(mlp.hidden):
                break
            if mlp.norm:
                x = self._normed(f"{net}.{index}.norm", views, x, valid if keep is not None else None)
            x = torch.relu(x)
        return x

    def _normed(self, name: str, views: Views, x: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        stats = self.stat_views()
        mean, var = stats[f"{name}.mean"].unsqueeze(1), stats[f"{name}.var"].unsqueeze(1)
        if valid is not None:
            weight, count = valid.unsqueeze(2), valid.sum(1)[:, None, None]
            held = count.clamp(min=1)
            mean = (x * weight).sum(1, keepdim=True) / held
            var = ((x - mean).square() * weight).sum(1, keepdim=True) / held
            with torch.no_grad():
                share = MOMENTUM * (count.squeeze(2) > 1)
                unbiased = (var * held / (held - 1).clamp(min=1)).squeeze(1)
                stats[f"{name}.mean"].lerp_(mean.squeeze(1), share.to(x.dtype).expand(-1, x.shape[2]))
                stats[f"{name}.var"].lerp_(unbiased, share.to(x.dtype).expand(-1, x.shape[2]))
        scaled = (x - mean) * torch.rsqrt(var + _EPSILON)
        return scaled * views[f"{name}.weight"].unsqueeze(1) + views[f"{name}.bias"].unsqueeze(1)


def _initial(nets: Sequence[Mlp], generator: np.random.Generator) -> np.ndarray:
    parts = []
    for net in nets:
        for name, shape in net.shapes().items():
            if ".norm." in name:
                parts.append(np.full(shape, float(name.endswith("weight"))))
            else:
                bound = 1 / math.sqrt(net.widths[int(name.split(".")[-2])])
                parts.append(generator.uniform(-bound, bound, shape))
    return np.concatenate([part.ravel() for part in parts])


def _split(flat: torch.Tensor, shapes: Mapping[str, tuple[int, ...]]) -> Views:
    parts = flat.split([math.prod(shape) for shape in shapes.values()], dim=1)
    return {name: part.view(len(flat), *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
