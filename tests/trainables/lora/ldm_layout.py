"""A pipeline's weights under the names of a single checkpoint file of Stable Diffusion (the LDM layout)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
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


OPEN_CLIP_LEAVES = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def checkpoint(unet: UNet2DConditionModel, vae: AutoencoderKL, *text_encoders: nn.Module) -> dict[str, Tensor]:
    """All weights of a checkpoint, as its original code names and shapes them: of Stable Diffusion XL with two text
    encoders, of 2.x with one whose activation is OpenCLIP's, else of 1.x."""
    if len(text_encoders) == 2:
        texts = clip_state(text_encoders[0], "conditioner.embedders.0.transformer.text_model.")
        texts |= open_clip_state(text_encoders[1], "conditioner.embedders.1.model.")
    elif text_encoders[0].config.hidden_act == "gelu":
        texts = open_clip_state(text_encoders[0], "cond_stage_model.model.")
    else:
        texts = clip_state(text_encoders[0], "cond_stage_model.transformer.text_model.")
    return {
        **{f"model.diffusion_model.{name}": value for name, value in unet_state(unet).items()},
        **{f"first_stage_model.{name}": value for name, value in vae_state(vae).items()},
        **texts,
    }


def clip_state(text_encoder: nn.Module, prefix: str) -> dict[str, Tensor]:
    """OpenAI's CLIP, which is stored under transformers' names."""
    return {prefix + name.removeprefix("text_model."): value for name, value in text_encoder.state_dict().items()}


def open_clip_state(text_encoder: nn.Module, prefix: str) -> dict[str, Tensor]:
    """OpenCLIP: the three projections of attention as one, the projection of the text the other way round."""
    state = {name.removeprefix("text_model."): value for name, value in text_encoder.state_dict().items()}
    found = {
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
    }
    if "text_projection.weight" in state:
        found["text_projection"] = state["text_projection.weight"].T
    for layer in range(text_encoder.config.num_hidden_layers):
        block, theirs = f"transformer.resblocks.{layer}", f"encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            parts = [state[f"{theirs}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            found[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
            for name, leaf in OPEN_CLIP_LEAVES.items():
                found[f"{block}.{leaf}.{kind}"] = state[f"{theirs}.{name}.{kind}"]
    return {prefix + name: value for name, value in found.items()}


def unet_state(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Blocks counted through, one number a resnet or a change of resolution; 0 is the first convolution."""
    layers = unet.config.layers_per_block
    prefixes = [
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("add_embedding.linear_1", "label_emb.0.0"),
        ("add_embedding.linear_2", "label_emb.0.2"),
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
