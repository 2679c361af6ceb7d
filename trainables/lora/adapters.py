"""LoRA adapters on a frozen model, through peft: put in, read out, restored and taken away without a trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict

NAME = "default"
# What kohya's standard LoRA trains: every linear layer and 1x1 convolution of the transformer blocks.
UNET_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


@dataclass
class Adapter:
    """One LoRA on one frozen model. `rate` is its learning rate; `alpha` divides by `rank` to give the scale."""

    model: torch.nn.Module
    targets: tuple[str, ...]
    rank: int
    alpha: float
    rate: float
    dropout: float = 0.0

    def attach(self, seed: int) -> Adapter:
        """Puts the adapter's layers in: A random by `seed`, B zero, so that the model starts as the base."""
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, target_modules=list(self.targets), lora_dropout=self.dropout
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(config, self.model, adapter_name=NAME)
        for parameter in self.parameters():
            parameter.data = parameter.data.float()
        return self

    def detach(self) -> None:
        """Takes the layers away; the base is what it was."""
        recurse_remove_peft_layers(self.model)
        for name in ("peft_config", "_hf_peft_config_loaded"):
            self.model.__dict__.pop(name, None)

    def parameters(self) -> list[torch.nn.Parameter]:
        """The trained tensors, in the model's order."""
        return [
            parameter for name, parameter in self.model.named_parameters() if f".{NAME}." in name and "lora_" in name
        ]

    def largest(self) -> float:
        """Largest absolute value among the trained tensors."""
        return max(float(parameter.detach().abs().max()) for parameter in self.parameters())

    def state(self) -> dict[str, torch.Tensor]:
        """Copies of the trained tensors on the CPU, under peft's names."""
        state = get_peft_model_state_dict(self.model, adapter_name=NAME)
        return {name: value.detach().cpu().clone() for name, value in state.items()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Loads what `state` gave.

        Raises:
            ValueError: the tensors belong to another adapter.
        """
        result = set_peft_model_state_dict(self.model, dict(state), adapter_name=NAME)
        if result.unexpected_keys:
            raise ValueError(f"checkpoint does not fit the adapter: {sorted(result.unexpected_keys)[:3]}")
