"""How good the embedded base and its CLIP are: the figures and the sample grid of the model card.

Real images and captions are Fluent Emoji 3D (TUNE_LORA_DATA); 96 pairs of them no stage of the training has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler

from benchmarks import common
from trainables.evaluation import ClipSpace, load_clip
from trainables.lora import base
from trainables.lora.generation import generate, write_image_grid
from trainables.tiny_sd import data, train

GRID = Path(__file__).parents[1] / "docs" / "images" / "tiny-sd.png"
SHOWN = (
    "red apple", "green apple", "banana", "pizza", "soccer ball", "red heart", "blue heart", "taxi",
    "crescent moon", "penguin", "cat face", "rocket", "birthday cake", "house", "large blue circle", "strawberry",
)  # fmt: skip
GROUP = 16


def as_arrays(renders: Sequence[data.Render]) -> np.ndarray:
    """The renders as the model sees them, (N, 64, 64, 3) in 0..1."""
    return np.stack([(data.view(render).permute(1, 2, 0).numpy() + 1) / 2 for render in renders]).clip(0, 1)


def retrieval(clip: ClipSpace, images: np.ndarray, captions: Sequence[str]) -> float:
    """Share of images whose own caption is the nearest of 16; chance is 1/16."""
    similarity = clip.images(images) @ clip.texts(captions).T
    hits = []
    for start in range(0, len(images), GROUP):
        block = similarity[start : start + GROUP, start : start + GROUP]
        hits.extend(block.argmax(1) == np.arange(len(block)))
    return float(np.mean(hits))


def drawn(model: base.Base, captions: Sequence[str]) -> np.ndarray:
    """One image a caption, as the trainer's evaluation draws them."""
    return generate(model.pipeline, captions, list(range(len(captions))), steps=20, guidance=5.0)


def held_out_loss(model: base.Base, renders: Sequence[data.Render]) -> float:
    """Noise-prediction error on held-out pairs at fixed noise and timesteps."""
    images = torch.stack([data.view(render) for render in renders])
    with torch.inference_mode():
        latents = model.vae.encode(images).latent_dist.mode() * model.vae.config.scaling_factor
        states = model.condition([render.captions()[0] for render in renders]).states
    return train.unet_validation(model.unet, latents, states, DDPMScheduler.from_config(model.noise_schedule.config))


def main() -> None:
    folder = common.data_folder() / "fluent3d" / "base"
    torch.set_num_threads(2)
    model, clip = base.load("tiny-sd", torch.device("cpu")), load_clip()
    training, held_out = data.load(folder)
    count = 32 if common.QUICK else len(held_out)
    held_out, seen = held_out[:count], training[:count]
    unknown = [render.captions()[0] for render in held_out]
    known = [render.captions()[0] for render in seen]
    style = [f"{name}{data.STYLE}" for name in SHOWN]
    GRID.parent.mkdir(parents=True, exist_ok=True)
    write_image_grid(
        GRID, drawn(model, style), labels=SHOWN, failed=None, title="tiny-sd: one sample a caption, not chosen"
    )
    figures = {
        "tiny_sd_vae_error": (train.vae_error(model.vae, held_out), "mean absolute error in 0..1, held-out renders"),
        "tiny_sd_held_out_loss": (held_out_loss(model, held_out), "noise prediction, held-out pairs"),
        "tiny_clip_held_out_top1_of_16": (
            retrieval(clip, as_arrays(held_out), unknown),
            "real held-out images; chance .0625",
        ),
        "tiny_clip_seen_top1_of_16": (retrieval(clip, as_arrays(seen), known), "real training images"),
        "tiny_sd_generated_seen_top1_of_16": (
            retrieval(clip, drawn(model, known), known),
            "generated, training captions",
        ),
        "tiny_sd_generated_held_out_top1_of_16": (
            retrieval(clip, drawn(model, unknown), unknown),
            "generated, captions never trained on; chance .0625",
        ),
    }
    common.write(
        "tiny_sd",
        [
            common.result(name, measured=round(value, 4), goal=None, unit="", runs=1, note=f"{note}; {count} pairs")
            for name, (value, note) in figures.items()
        ],
    )


if __name__ == "__main__":
    main()
