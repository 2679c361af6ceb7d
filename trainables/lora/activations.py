"""Activations of a model: kept for the backward pass, or computed a second time in it, which takes less memory."""

from __future__ import annotations

import torch
from diffusers import ModelMixin
from transformers import PreTrainedModel


def recompute(model: torch.nn.Module) -> None:
    """Lets the model compute its activations again in the backward pass; only while it is in training mode."""
    if isinstance(model, ModelMixin):
        model.enable_gradient_checkpointing()
    elif isinstance(model, PreTrainedModel):
        model.activation_checkpointing_enable({"use_reentrant": False})


def keep(model: torch.nn.Module) -> None:
    """Undoes `recompute`."""
    if isinstance(model, ModelMixin):
        model.disable_gradient_checkpointing()
    elif isinstance(model, PreTrainedModel):
        model.activation_checkpointing_disable()
