"""A pipeline's weights under the names of a single checkpoint file of Stable Diffusion 1.x (the LDM layout)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

Names = Iterable[tuple[str, str]]  # prefix in diffusers, prefix in LDM

UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_LEAVES = {
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def checkpoint(unet: UNet2DConditionModel, vae: AutoencoderKL, text_encoder: nn.Module) -> dict[str, Tensor]:
    """All weights of a Stable Diffusion 1.x checkpoint, as its original code names and shapes them."""
    text = {name.removeprefix("text_model."): value for name, value in text_encoder.state_dict().items()}
    return {
        **{f"model.diffusion_model.{name}": value for name, value in unet_state(unet).items()},
        **{f"first_stage_model.{name}": value for name, value in vae_state(vae).items()},
        **{f"cond_stage_model.transformer.text_model.{name}": value for name, value in text.items()},
    }


def unet_state(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Blocks counted through, one number a resnet or a change of resolution; 0 is the first convolution."""
    layers = unet.config.layers_per_block
    prefixes = [
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("conv_in", "input_blocks.0.0"),
        ("mid_block.resnets.0", "middle_block.0"),
        ("mid_block.attentions.0", "middle_block.1"),
        ("mid_block.resnets.1", "middle_block.2"),
        ("conv_norm_out", "out.0"),
        ("conv_out", "out.2"),
    ]
    for index, block in enumerate(unet.down_blocks):
        first = 1 + index * (layers + 1)
        for layer in range(layers):
            prefixes.append((f"down_blocks.{index}.resnets.{layer}", f"input_blocks.{first + layer}.0"))
            prefixes.append((f"down_blocks.{index}.attentions.{layer}", f"input_blocks.{first + layer}.1"))
        if block.downsamplers:
            prefixes.append((f"down_blocks.{index}.downsamplers.0.conv", f"input_blocks.{first + layers}.0.op"))
    for index, block in enumerate(unet.up_blocks):
        first = index * (layers + 1)
        for layer in range(layers + 1):
            prefixes.append((f"up_blocks.{index}.resnets.{layer}", f"output_blocks.{first + layer}.0"))
            prefixes.append((f"up_blocks.{index}.attentions.{layer}", f"output_blocks.{first + layer}.1"))
        if block.upsamplers:
            place = 2 if hasattr(block, "attentions") else 1
            prefixes.append((f"up_blocks.{index}.upsamplers.0.conv", f"output_blocks.{first + layers}.{place}.conv"))
    return {
        _with_leaf(name, UNET_RESNET) if ".resnets." in source else name: value
        for source, name, value in _renamed(unet.state_dict(), prefixes)
    }


def vae_state(vae: AutoencoderKL) -> dict[str, Tensor]:
    """The decoder's blocks counted by resolution, from the finest; attention as convolutions of one pixel."""
    levels = len(vae.config.block_out_channels)
    prefixes = [("quant_conv", "quant_conv"), ("post_quant_conv", "post_quant_conv")]
    for half in ("encoder", "decoder"):
        prefixes += [
            (f"{half}.conv_in", f"{half}.conv_in"),
            (f"{half}.mid_block.resnets.0", f"{half}.mid.block_1"),
            (f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1"),
            (f"{half}.mid_block.resnets.1", f"{half}.mid.block_2"),
            (f"{half}.conv_norm_out", f"{half}.norm_out"),
            (f"{half}.conv_out", f"{half}.conv_out"),
        ]
    for index in range(levels):
        coarse = levels - 1 - index
        prefixes += [
            (f"encoder.down_blocks.{index}.resnets", f"encoder.down.{index}.block"),
            (f"encoder.down_blocks.{index}.downsamplers.0.conv", f"encoder.down.{index}.downsample.conv"),
            (f"decoder.up_blocks.{index}.resnets", f"decoder.up.{coarse}.block"),
            (f"decoder.up_blocks.{index}.upsamplers.0.conv", f"decoder.up.{coarse}.upsample.conv"),
        ]
    return {
        _with_leaf(name, VAE_LEAVES): value[:, :, None, None] if ".to_" in source and value.ndim == 2 else value
        for source, name, value in _renamed(vae.state_dict(), prefixes)
    }


def _renamed(state: Mapping[str, Tensor], prefixes: Names) -> Iterable[tuple[str, str, Tensor]]:
    known = dict(prefixes)
    for name, value in state.items():
        (prefix,) = [prefix for prefix in known if name.startswith(prefix + ".")]
        yield name, known[prefix] + name.removeprefix(prefix), value


def _with_leaf(name: str, leaves: Mapping[str, str]) -> str:
    """The name with the module that holds the weight renamed."""
    for theirs, ours in leaves.items():
        for weight in (".weight", ".bias"):
            if name.endswith(f".{theirs}{weight}"):
                return name.removesuffix(theirs + weight) + ours + weight
    return name
