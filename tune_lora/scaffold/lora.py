"""A commented study file for a folder of captioned images."""

from __future__ import annotations

import shlex
from pathlib import Path

from search_spaces.space import Space
from trainables.lora import dataset
from trainables.lora.image_folder import METADATA
from trainables.lora.paths import resolve_base
from trainables.lora.pictures import IMAGE_SUFFIXES
from tune_lora.errors import InputError
from tune_lora.scaffold.asked import Asked, scalar
from tune_lora.scaffold.columns import columns

TEMPLATE = """\
# Tunes a LoRA of the {images} captioned images in this folder.
#
#   tune-lora validate {file}     says what is wrong, starts nothing
#   tune-lora sample {file}       what would be tried
#   tune-lora run {file}          the search; run it again to go on
name: {name}
base: {base}    # tiny-sd (embedded), a diffusers folder, or a single .safetensors file
dataset:
  path: {path}    # this folder; or a kohya dataset .toml
  # resolution: 512    # pixels; what is not given here is taken from the .toml, or is a default
space: {space}    # lora_tiny for tiny-sd; lora_v1, lora_v2_1 for Stable Diffusion; or a space of your own
# preset: balanced    # lora_v2_1 only: conservative, balanced, aggressive or extreme alpha ratios
search:
  sampler: tpe
  seed: 42
  # start_with: favourites.csv    # configurations to train first (CSV, YAML, JSON, or a list)
  # observations: past.csv    # past trials with their value: told to the search, not trained again
  # warm_start: [{{study: results/earlier}}]    # learn from an earlier study, also of another space
scheduler: {{name: asha, grace: 2, eta: 2}}    # no trial is stopped before epoch 2; then the better half goes on
objective:
  weights: {{identity: 0.3}}    # likeness to held-out images, beside style, diversity and agreement with the prompt
# evaluation:
#   prompts: ["my_character, frontal view, happy smile"]    # default: captions of your own images
budget:
  n_trials: {n_trials}
  # timeout_hours: 8
resources: {{cpu: 1}}    # of one trial; a GPU is used where there is one
tracking: {{wandb: auto}}    # online when logged in, offline otherwise; or off
results: results
"""


def recognise(asked: Asked) -> str:
    """Images with captions beside them, or listed with a text."""
    folder = asked.path
    if not folder.is_dir():
        return ""
    captioned = sum(
        one.suffix.lower() in IMAGE_SUFFIXES and one.with_suffix(".txt").is_file() for one in folder.iterdir()
    )
    if captioned:
        return f"{captioned} captioned images"
    return f"captions in {METADATA}" if "text" in columns(folder / METADATA) else ""


def write(asked: Asked, file: Path) -> str:
    """The study of a LoRA. Its space is ``lora_tiny`` for the embedded base and ``lora_v2_1`` for others, unless given.

    Raises:
        InputError: the images, the base or the space are not usable.
    """
    folder, base = asked.path, asked.base or "tiny-sd"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; must be a folder of captioned images")
    found = dataset.load(folder)
    resolve_base(base)
    chosen = asked.space or ("lora_tiny" if base == "tiny-sd" else "lora_v2_1")
    Space.load(chosen)
    return TEMPLATE.format(
        images=len(found.train) + len(found.held_out),
        file=shlex.quote(str(file)),
        name=scalar(asked.name),
        base=scalar(base if base == "tiny-sd" else str(resolve_base(base).resolve())),
        path=asked.seen_from(file),
        space=scalar(chosen),
        n_trials=asked.n_trials,
    )
