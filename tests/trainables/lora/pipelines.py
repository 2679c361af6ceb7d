"""Pipelines of random weights, small enough for a picture in seconds, with every kind of module that adapters go on."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from trainables.tiny_sd import architecture


def stable_diffusion(folder: Path) -> StableDiffusionPipeline:
    """Of the shape of tiny-sd; `folder` is given the tokenizer."""
    torch.manual_seed(0)
    return quiet(
        StableDiffusionPipeline(
            vae=architecture.build_vae(),
            text_encoder=CLIPTextModel(architecture.text_config()),
            tokenizer=architecture.write_tokenizer(folder),
            unet=architecture.build_unet(),
            scheduler=DPMSolverMultistepScheduler(**architecture.SCHEDULER),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )


def stable_diffusion_xl(folder: Path) -> StableDiffusionXLPipeline:
    """SDXL's blocks and both text encoders, in a few channels."""
    torch.manual_seed(0)
    tokenizer = architecture.write_tokenizer(folder)
    narrow = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = CLIPTextConfig(vocab_size=architecture.VOCAB_SIZE, projection_dim=24, max_position_embeddings=32, **narrow)
    return quiet(
        StableDiffusionXLPipeline(
            vae=AutoencoderKL.from_config(architecture.build_vae().config),
            text_encoder=CLIPTextModel(text),
            text_encoder_2=CLIPTextModelWithProjection(text),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=unet_xl(),
            scheduler=EulerDiscreteScheduler(**architecture.SCHEDULER),
            add_watermarker=False,
        )
    )


def unet_xl() -> UNet2DConditionModel:
    """SDXL's UNet, its blocks and names, in 16 to 32 channels."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=2,
        cross_attention_dim=64,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
        norm_num_groups=8,
    )


def quiet(pipeline: Any) -> Any:
    """Frozen, in evaluation mode, without a progress bar."""
    pipeline.set_progress_bar_config(disable=True)
    for name in ("vae", "unet", "text_encoder", "text_encoder_2"):
        if (model := getattr(pipeline, name, None)) is not None:
            model.requires_grad_(False).eval()
    return pipeline
