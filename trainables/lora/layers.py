"""LoRA layers: a frozen linear or convolution layer with a trained low-rank update beside it.

LoRA: Hu et al. 2021 (arXiv 2106.09685). Convolutions as in LoCon (a k x k convolution down to the rank, 1 x 1 up).
rsLoRA: Kalajdzievski 2023 (arXiv 2312.03732). DoRA: Liu et al. 2024 (arXiv 2402.09353). Parameters are named as peft
names them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

_NO_LENGTH = 1e-24
"""Squared: a row of zeros has no direction to keep, and must not divide by nought."""


class LoraLayer(nn.Module):
    """``base(x) + scale * B(A(dropout(x)))``; with DoRA each output row of the summed weight has a trained length.

    `scale` is alpha / rank, or alpha / sqrt(rank) with rsLoRA. A and B are fp32 whatever the base is in; they are cast
    to the input for the product. The base layer may be quantised, as long as it can be called.
    """

    base_layer: nn.Module
    lora_A: nn.Module  # noqa: N815  # the field's own name
    lora_B: nn.Module  # noqa: N815
    lora_magnitude_vector: nn.Parameter | None

    def __init__(
        self,
        base_layer: nn.Module,
        rank: int,
        alpha: float,
        *,
        dropout: float = 0.0,
        dora: bool = False,
        rslora: bool = False,
    ) -> None:
        super().__init__()
        self.base_layer, self.rank, self.alpha, self.dropout = base_layer, rank, alpha, dropout
        self.scale = alpha / (math.sqrt(rank) if rslora else rank)
        self.lora_A, self.lora_B = (layer.to(_weight(base_layer).device) for layer in self._pair(rank))
        self.lora_magnitude_vector = nn.Parameter(self._frozen_rows().norm(dim=1)) if dora else None
        self._squared_norms: torch.Tensor | None = None

    def _pair(self, rank: int) -> tuple[nn.Module, nn.Module]:
        raise NotImplementedError

    def _down(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _up(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _per_output(self, values: torch.Tensor) -> torch.Tensor:
        """Values (outputs,) in a shape that multiplies the layer's output."""
        raise NotImplementedError

    def reset(self, generator: torch.Generator) -> None:
        """A as torch starts a linear layer, drawn on the CPU so that every device gets the same; B zero."""
        down = _weight(self.lora_A)
        fresh = torch.empty(down.shape)
        nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator)
        with torch.no_grad():
            down.copy_(fresh)
        nn.init.zeros_(_weight(self.lora_B))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.adjusted(self.base_layer(x), x)

    def adjusted(self, plain: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The layer's output, given that of the frozen layer: who serves several adapters computes that once."""
        down, up = _weight(self.lora_A).to(x.dtype), _weight(self.lora_B).to(x.dtype)
        inner = F.dropout(x, self.dropout, training=True) if self.dropout and self.training else x
        # The scale is put where the tensor is smallest: between the two products.
        update = self._up(self._down(inner, down) * self.scale, up)
        if self.lora_magnitude_vector is None:
            return plain + update
        return self._of_trained_length(plain, update)

    def _of_trained_length(self, plain: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
        assert self.lora_magnitude_vector is not None  # asked by the caller
        gain = self._per_output(self.lora_magnitude_vector / self.weight_norm()).to(plain.dtype)
        bias = self.bias
        if bias is None:
            return gain * (plain + update)
        offset = self._per_output(bias).to(plain.dtype)
        return gain * (plain - offset + update) + offset

    @torch.no_grad()
    def weight_norm(self) -> torch.Tensor:
        """Length of each row of the summed weight, (outputs,); a constant to the gradient, as DoRA asks (section 4.3).

        From ``|w + s b A|^2 = |w|^2 + 2 s b.(A w) + s^2 b (A A^T) b``: the summed weight is never formed.
        """
        frozen, down, up = self._frozen_rows(), self._rows(self.lora_A), self._rows(self.lora_B)
        if self._squared_norms is None:
            self._squared_norms = frozen.square().sum(1)
        with torch.autocast(frozen.device.type, enabled=False):  # lengths are exact whatever the layer computes in
            crossed = ((frozen @ down.T) * up).sum(1)
            own = ((up @ (down @ down.T)) * up).sum(1)
        squared = self._squared_norms + 2 * self.scale * crossed + self.scale**2 * own
        return squared.clamp_min(_NO_LENGTH).sqrt()

    @property
    def weight(self) -> torch.Tensor:
        """The summed weight, for models that read a layer's weight in place of calling it; of a quantised layer its
        own, packed one."""
        frozen, down, up = (_weight(layer) for layer in (self.base_layer, self.lora_A, self.lora_B))
        if frozen.numel() != up.shape[0] * down[0].numel():
            return frozen
        summed = self._as_rows(frozen) + self.scale * (up.flatten(1) @ down.flatten(1)).to(frozen.dtype)
        if self.lora_magnitude_vector is not None:
            summed = (self.lora_magnitude_vector / self.weight_norm()).to(frozen.dtype).unsqueeze(1) * summed
        return self._as_weight(summed)

    @property
    def bias(self) -> torch.Tensor | None:
        """That of the frozen layer."""
        return getattr(self.base_layer, "bias", None)

    def _as_rows(self, weight: torch.Tensor) -> torch.Tensor:
        """The frozen layer's weight as a row for each output."""
        return weight.flatten(1)

    def _as_weight(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows in the shape of the frozen layer's weight."""
        return rows.reshape(_weight(self.base_layer).shape)

    def _frozen_rows(self) -> torch.Tensor:
        return self._as_rows(_weight(self.base_layer).detach().float())

    @staticmethod
    def _rows(layer: nn.Module) -> torch.Tensor:
        return _weight(layer).detach().float().flatten(1)

    @torch.no_grad()
    def delta(self) -> torch.Tensor:
        """What training added to the frozen weight, fp32, of the weight's shape (DoRA's lengths included)."""
        update = self.scale * (self._rows(self.lora_B) @ self._rows(self.lora_A))
        if self.lora_magnitude_vector is not None:
            gain = (self.lora_magnitude_vector / self.weight_norm()).unsqueeze(1)
            update = gain * (self._frozen_rows() + update) - self._frozen_rows()
        return self._as_weight(update)


class LoraLinear(LoraLayer):
    """LoRA of a linear layer; A is (rank, inputs), B (outputs, rank)."""

    base_layer: nn.Linear

    def _pair(self, rank: int) -> tuple[nn.Module, nn.Module]:
        base = self.base_layer
        return nn.Linear(base.in_features, rank, bias=False), nn.Linear(rank, base.out_features, bias=False)

    def _down(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weight)

    def _up(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weight)

    def _per_output(self, values: torch.Tensor) -> torch.Tensor:
        return values


class LoraConv2d(LoraLayer):
    """LoRA of a convolution; A is (rank, inputs, k, k), B (outputs, rank, 1, 1)."""

    base_layer: nn.Conv2d

    def _pair(self, rank: int) -> tuple[nn.Module, nn.Module]:
        base = self.base_layer
        down = nn.Conv2d(
            base.in_channels, rank, base.kernel_size, base.stride, base.padding, base.dilation, bias=False  # type: ignore[arg-type]  # tuples of two
        )  # fmt: skip
        return down, nn.Conv2d(rank, base.out_channels, 1, bias=False)

    def _down(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        base = self.base_layer
        return F.conv2d(x, weight, None, base.stride, base.padding, base.dilation)

    def _up(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, weight)

    def _per_output(self, values: torch.Tensor) -> torch.Tensor:
        return values.view(1, -1, 1, 1)


def _weight(module: nn.Module) -> torch.Tensor:
    weight: torch.Tensor = module.weight  # type: ignore[assignment]  # torch types every attribute as tensor or module
    return weight


KINDS: dict[type[nn.Module], type[LoraLayer]] = {nn.Linear: LoraLinear, nn.Conv2d: LoraConv2d}
"""The LoRA layer of each kind of frozen layer."""


def can_be_adapted(module: nn.Module) -> bool:
    """Whether there is a LoRA layer for a module."""
    return isinstance(module, tuple(KINDS)) and getattr(module, "groups", 1) == 1


def lora_layer(base_layer: nn.Module, rank: int, alpha: float, **options: bool | float) -> LoraLayer:
    """The LoRA layer of a linear or convolution layer."""
    kind = next(kind for frozen, kind in KINDS.items() if isinstance(base_layer, frozen))
    return kind(base_layer, rank, alpha, **options)  # type: ignore[arg-type]  # options are those of LoraLayer
