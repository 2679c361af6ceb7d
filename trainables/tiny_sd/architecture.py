"""The shapes of ``tiny-sd`` and its CLIP: every component of Stable Diffusion, a hundred times smaller.

The text encoder of the pipeline *is* the text tower of the CLIP, as it is in Stable Diffusion 1.x. It is stored once,
in diffusers' layout; `clip_from_parts` rebuilds the CLIP in open_clip's architecture from it and from the image
tower.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from open_clip.tokenizer import default_bpe
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

IMAGE_SIZE = 64  # pixels
CONTEXT_LENGTH = 32  # tokens; captions of renders are short, and 77 would cost 2.4 times the text encoder's time
EMBED_DIM = 96  # of the joint CLIP space
TEXT_WIDTH = 80
TEXT_LAYERS = 3
TEXT_HEADS = 4
VOCAB_SIZE = 49408  # open_clip's byte-pair vocabulary

SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}

VISION_CFG: dict[str, Any] = {"layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "image_size": IMAGE_SIZE}
TEXT_CFG: dict[str, Any] = {
    "context_length": CONTEXT_LENGTH,
    "vocab_size": VOCAB_SIZE,
    "width": TEXT_WIDTH,
    "heads": TEXT_HEADS,
    "layers": TEXT_LAYERS,
}


def build_vae() -> AutoencoderKL:
    """Autoencoder from (3, 64, 64) images in -1..1 to (4, 16, 16) latents."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=IMAGE_SIZE,
        mid_block_add_attention=False,
    )


def build_unet() -> UNet2DConditionModel:
    """Denoiser of (4, 16, 16) latents, conditioned on (32, 80) text states."""
    return UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(48, 96, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # diffusers reads this as the number of heads of this UNet class
        norm_num_groups=16,
    )


def build_clip() -> open_clip.CLIP:
    """The miniature CLIP, in open_clip's architecture (ResNet image tower, transformer text tower)."""
    return open_clip.CLIP(embed_dim=EMBED_DIM, vision_cfg=VISION_CFG, text_cfg=TEXT_CFG)


def text_config() -> CLIPTextConfig:
    """The text tower, as transformers names its settings."""
    return CLIPTextConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=EMBED_DIM,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=TEXT_HEADS,
        max_position_embeddings=CONTEXT_LENGTH,
        hidden_act="gelu",
        bos_token_id=VOCAB_SIZE - 2,
        eos_token_id=VOCAB_SIZE - 1,
        pad_token_id=VOCAB_SIZE - 1,
    )


def _split_attention(prefix: str, weight: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    parts = state[f"attn.in_proj_{weight}"].chunk(3)
    return {f"{prefix}.self_attn.{name}_proj.{weight}": part for name, part in zip("qkv", parts, strict=True)}


def text_tower_to_hf(clip: open_clip.CLIP) -> CLIPTextModel:
    """The CLIP's text tower as a transformers model with the same outputs."""
    model = CLIPTextModel(text_config())
    root = "text_model." if any(name.startswith("text_model.") for name in model.state_dict()) else ""
    source = clip.state_dict()
    state = {
        f"{root}embeddings.token_embedding.weight": source["token_embedding.weight"],
        f"{root}embeddings.position_embedding.weight": source["positional_embedding"],
        f"{root}final_layer_norm.weight": source["ln_final.weight"],
        f"{root}final_layer_norm.bias": source["ln_final.bias"],
    }
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    names |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for layer in range(TEXT_LAYERS):
        prefix = f"{root}encoder.layers.{layer}"
        block = clip.transformer.resblocks[layer].state_dict()
        for weight in ("weight", "bias"):
            state |= _split_attention(prefix, weight, block)
            state |= {f"{prefix}.{hf}.{weight}": block[f"{ours}.{weight}"] for ours, hf in names.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any("position_ids" not in name for name in missing):
        raise RuntimeError(f"text tower does not fit: missing {missing}, unexpected {unexpected}")
    return model.eval()


def text_tower_from_hf(model: CLIPTextModel) -> dict[str, torch.Tensor]:
    """The inverse of `text_tower_to_hf`: state of the text tower under open_clip's names."""
    source = {name.removeprefix("text_model."): value for name, value in model.state_dict().items()}
    state = {
        "token_embedding.weight": source["embeddings.token_embedding.weight"],
        "positional_embedding": source["embeddings.position_embedding.weight"],
        "ln_final.weight": source["final_layer_norm.weight"],
        "ln_final.bias": source["final_layer_norm.bias"],
    }
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    names |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for layer in range(TEXT_LAYERS):
        ours, theirs = f"transformer.resblocks.{layer}", f"encoder.layers.{layer}"
        for weight in ("weight", "bias"):
            parts = [source[f"{theirs}.self_attn.{name}_proj.{weight}"] for name in "qkv"]
            state[f"{ours}.attn.in_proj_{weight}"] = torch.cat(parts)
            for our_name, hf_name in names.items():
                state[f"{ours}.{our_name}.{weight}"] = source[f"{theirs}.{hf_name}.{weight}"]
    return state


def clip_from_parts(text_encoder: CLIPTextModel, image_tower: dict[str, torch.Tensor]) -> open_clip.CLIP:
    """The whole CLIP from the pipeline's text encoder and the separately stored image tower and projections."""
    clip = build_clip()
    clip.load_state_dict(text_tower_from_hf(text_encoder) | image_tower, strict=True)
    return clip.eval()


def image_tower_state(clip: open_clip.CLIP) -> dict[str, torch.Tensor]:
    """What the text encoder does not hold: image tower, text projection, temperature."""
    keep = ("visual.", "text_projection", "logit_scale")
    return {name: value.contiguous() for name, value in clip.state_dict().items() if name.startswith(keep)}


def write_tokenizer(folder: Path, length: int = CONTEXT_LENGTH, padding: str = "<|endoftext|>") -> CLIPTokenizer:
    """Writes open_clip's bundled byte-pair vocabulary as a transformers tokenizer that fills up with `padding`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : VOCAB_SIZE - 256 - 2 - 256 + 1]
    alphabet = list(open_clip.tokenizer.bytes_to_unicode().values())
    tokens = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(merge.split()) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({token: index for index, token in enumerate(tokens)}, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(
        str(folder), model_max_length=length, pad_token=padding, unk_token="<|endoftext|>"
    )
    tokenizer.save_pretrained(str(folder))
    return tokenizer
