"""LoRA of the linear layer of GPT-2 and its kin, which keeps its weight the other way round."""

from __future__ import annotations

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from trainables.lora.layers import KINDS, LoraLinear


class LoraConv1D(LoraLinear):
    """LoRA of a `Conv1D`, whose weight is (inputs, outputs); A is (rank, inputs), B (outputs, rank), as peft has it."""

    def _pair(self, rank: int) -> tuple[nn.Module, nn.Module]:
        inputs, outputs = self.base_layer.weight.shape
        return nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)

    def _as_rows(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.T

    def _as_weight(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.T


KINDS[Conv1D] = LoraConv1D
