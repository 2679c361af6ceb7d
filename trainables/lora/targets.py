"""Which layers of a model get an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from trainables.lora.layers import LoraLayer, can_be_adapted
from trainables.lora.packed_layers import PackedLayer


@dataclass(frozen=True)
class Targets:
    """Layers by the ends of their names (``to_q`` is every ``...to_q``); no `ends`: every linear layer.

    `convolutions` are the ends that are added where a trial gives convolutions a rank (LoCon). `without` are left out.
    """

    ends: tuple[str, ...] = ()
    convolutions: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def layers(self, model: nn.Module, *, convolutions: bool = False) -> Iterator[tuple[str, nn.Module]]:
        """Name and module of each layer that is meant, in the model's order."""
        ends = self.ends + (self.convolutions if convolutions and self.ends else ())
        for name, module in frozen_modules(model):
            if not can_be_adapted(module) or isinstance(module, LoraLayer) or _ends(name, self.without):
                continue
            if _ends(name, ends) if ends else not isinstance(module, nn.Conv2d):
                yield name, module


def frozen_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of everything in a model, in its order; in place of a layer that several adapters share, the
    frozen layer itself."""
    seen: set[nn.Module] = set()

    def walk(prefix: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        module = module.base_layer if isinstance(module, PackedLayer) else module
        if module in seen:
            return
        seen.add(module)
        yield prefix, module
        for name, child in module.named_children():
            yield from walk(f"{prefix}.{name}" if prefix else name, child)

    yield from walk("", model)


def _ends(name: str, ends: tuple[str, ...]) -> bool:
    return any(name == end or name.endswith(f".{end}") for end in ends)


_UNET_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_UNET_BLOCK = (*_UNET_ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
# What kohya's scripts adapt besides with a rank for convolutions: all of the residual blocks and the resampling.
_UNET_CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv")
_TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")

UNET = {
    "attention": Targets(_UNET_ATTENTION, _UNET_CONVOLUTIONS),
    "all": Targets(_UNET_BLOCK, _UNET_CONVOLUTIONS),
}
"""Of Stable Diffusion's UNet: attention alone, or every linear layer and 1x1 convolution of the transformer blocks, as
kohya's standard LoRA has it."""
CLIP_TEXT = {"attention": Targets(_TEXT_ATTENTION), "all": Targets((*_TEXT_ATTENTION, "fc1", "fc2"))}
"""Of its text encoders."""
CAUSAL_LM = {
    "attention": Targets(("q_proj", "k_proj", "v_proj", "o_proj")),
    "all": Targets(without=("lm_head", "embed_out", "output")),
}
"""Of causal language models: attention by the names most of them use, or every linear layer but the head."""
