"""The configuration of Stable Diffusion 1.5 as a folder, since a single checkpoint file carries none and no hub is
asked."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig

from trainables.lora.paths import cache_folder
from trainables.tiny_sd.architecture import write_tokenizer

_MODEL_INDEX = """{
  "_class_name": "StableDiffusionPipeline",
  "scheduler": ["diffusers", "PNDMScheduler"],
  "text_encoder": ["transformers", "CLIPTextModel"],
  "tokenizer": ["transformers", "CLIPTokenizer"],
  "unet": ["diffusers", "UNet2DConditionModel"],
  "vae": ["diffusers", "AutoencoderKL"],
  "safety_checker": [null, null],
  "feature_extractor": [null, null],
  "requires_safety_checker": false
}
"""


def config_folder() -> Path:
    """A folder with the configurations (no weights) of every component; written once into the cache."""
    folder = cache_folder() / "config-sd15-1"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent))
        _write(scratch)
        try:
            scratch.replace(folder)
        except OSError:  # another process was first, and its folder is the same
            shutil.rmtree(scratch)
    return folder


def _write(folder: Path) -> None:
    (folder / "model_index.json").write_text(_MODEL_INDEX)
    # The defaults of diffusers' UNet are those of SD 1.x, but for the width of the text states.
    import accelerate

    with accelerate.init_empty_weights():
        UNet2DConditionModel(sample_size=64, cross_attention_dim=768).save_config(folder / "unet")
        AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
            scaling_factor=0.18215,
        ).save_config(folder / "vae")
    text = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        projection_dim=768,
    )
    text.architectures = ["CLIPTextModel"]
    text.save_pretrained(folder / "text_encoder")
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_config(folder / "scheduler")
    write_tokenizer(folder / "tokenizer", 77)
