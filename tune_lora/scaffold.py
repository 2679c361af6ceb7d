"""A commented study file for a folder of captioned images."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from search_spaces.space import Space
from trainables.lora import dataset
from trainables.lora.paths import resolve_base
from tune_lora import atomic
from tune_lora.errors import InputError

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


def write_study_file(
    folder: Path, *, base: str = "tiny-sd", space: str | None = None, n_trials: int = 20, output: Path | None = None
) -> Path:
    """Writes ``study.yaml`` into the folder of images, or to `output`; returns its path.

    `space` is ``lora_tiny`` for the embedded base and ``lora_v2_1`` for others, unless given.

    Raises:
        InputError: the images, the base or the space are not usable, or the file exists.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; must be a folder of captioned images")
    found = dataset.load(folder)
    resolve_base(base)
    chosen = space or ("lora_tiny" if base == "tiny-sd" else "lora_v2_1")
    Space.load(chosen)
    path = output or folder / "study.yaml"
    if path.exists():
        raise InputError(f"{path} exists and is kept; remove it, or name another file with --output")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} does not exist; must be a folder to write {path.name} into")
    text = TEMPLATE.format(
        images=len(found.train) + len(found.held_out),
        file=path,
        name=_scalar(study_name(folder)),
        base=_scalar(base if base == "tiny-sd" else str(resolve_base(base).resolve())),
        path="." if path.parent.resolve() == folder.resolve() else _scalar(str(folder.resolve())),
        space=_scalar(chosen),
        n_trials=n_trials,
    )
    return atomic.write_text(path, text)


def study_name(folder: Path) -> str:
    """A name for a study of these images: the folder's, with what a name cannot hold replaced."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")
    return name[:100] or "study"


def _scalar(text: str) -> str:
    """Text as one YAML value, quoted where it must be."""
    return yaml.safe_dump(text, allow_unicode=True, width=10_000).removesuffix("...\n").strip()
