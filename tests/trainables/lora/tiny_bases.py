"""Stable Diffusion 1.5, 2.1 and XL as their configurations have them, blocks and layers and all, in a fortieth of the
channels and with random weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from trainables.lora import base_configs

FAMILIES = ("sd15", "sd21", "sdxl")
TEXT = {"intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
WIDTHS = {"sd15": (24,), "sd21": (32,), "sd21-base": (32,), "sdxl": (24, 40)}
"""Of the text encoders."""
SIDE = 64
"""Pixels of the images, eight times those of the latents."""


def config(name: str) -> base_configs.Pipeline:
    """The shipped configuration with few channels."""
    full, widths = base_configs.PIPELINES[name], WIDTHS[name]
    blocks = len(full.unet.get("block_out_channels", (0,) * 4))
    unet = {"block_out_channels": (8, 16, 32, 32)[:blocks], "norm_num_groups": 4, "attention_head_dim": 2}
    unet |= {"sample_size": SIDE // 8, "cross_attention_dim": sum(widths)}
    if name == "sdxl":
        unet |= {"transformer_layers_per_block": (1, 2, 3), "addition_time_embed_dim": 4}
        unet |= {"projection_class_embeddings_input_dim": 6 * 4 + widths[-1]}
    texts = {
        part: {**numbers, **TEXT, "hidden_size": width, "projection_dim": width}
        for (part, numbers), width in zip(full.text_encoders.items(), widths, strict=True)
    }
    vae = {**full.vae, "block_out_channels": (8, 16, 32, 32), "norm_num_groups": 4, "sample_size": SIDE}
    return dataclasses.replace(full, unet={**full.unet, **unet}, vae=vae, text_encoders=texts)


def write_config(name: str, folder: Path) -> Path:
    """A folder with the configurations and without weights."""
    folder.mkdir(parents=True, exist_ok=True)
    base_configs.write_config(config(name), folder)
    return folder


def pipeline(folder: Path, seed: int = 0) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    """The pipeline that a folder's configurations describe, with random weights."""
    torch.manual_seed(seed)
    index = read(folder / "model_index.json")
    scheduler = read(folder / "scheduler" / "scheduler_config.json")
    parts = {
        "unet": UNet2DConditionModel.from_config(read(folder / "unet" / "config.json")).eval(),
        "vae": AutoencoderKL.from_config(read(folder / "vae" / "config.json")).eval(),
        "text_encoder": CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder")).eval(),
        "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        "scheduler": getattr(diffusers, index["scheduler"][1]).from_config(scheduler),
    }
    if index["_class_name"] == "StableDiffusionPipeline":
        return StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    second = CLIPTextModelWithProjection(CLIPTextConfig.from_pretrained(folder / "text_encoder_2")).eval()
    second.text_projection.weight.data.normal_(generator=torch.Generator().manual_seed(seed))
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer_2")
    return StableDiffusionXLPipeline(**parts, text_encoder_2=second, tokenizer_2=tokenizer, add_watermarker=False)


def read(path: Path) -> dict:
    """A configuration file."""
    return json.loads(path.read_text("utf-8"))


def write_folder(name: str, folder: Path, seed: int = 0) -> Path:
    """A pipeline in diffusers' layout, weights and all."""
    pipeline(write_config(name, folder.with_name(folder.name + "-config")), seed).save_pretrained(folder)
    return folder
