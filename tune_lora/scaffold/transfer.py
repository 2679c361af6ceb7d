"""A commented study file for two tables: pre-train on computed labels, transfer to measured ones."""

from __future__ import annotations

import shlex
from pathlib import Path

from tune_lora.errors import InputError
from tune_lora.scaffold.asked import Asked, scalar
from tune_lora.scaffold.columns import columns, must_have

TEMPLATE = """\
# Which pre-training on {stage1_name} transfers to {stage2_name}?
#
#   tune-lora validate {file}     says what is wrong, starts nothing
#   tune-lora sample {file}       what would be tried
#   tune-lora run {file}          the search; run it again to go on
name: {name}
trainer: two_stage
transfer:
  stage1:    # many rows with a computed label
    path: {stage1}
    target: {target}
{smiles1}{key1}  stage2:    # fewer rows with a measured value
    path: {stage2}
    target: {target}
    # group: COLUMN    # rows of one group are never in two folds
{smiles2}{key2}  exclude_overlap: true    # stage 1 does not see the entities that a fold is tested on
cross_validation: {{n_folds: 5, aggregation: mean}}    # or median, or pessimistic
space:
  name: {name}-space
  parameters:    # of stage 1; stage 2 is the same for all, so that trials compare
    encoder_latent_dim: {{type: categorical, choices: [64, 128, 256], default: 128}}
    encoder_hidden_dims: {{type: categorical, choices: ["512_256", "1024_512_256", "256_128"], default: "512_256"}}
    encoder_dropout: {{type: uniform, low: 0.15, high: 0.35, default: 0.2}}
    chi_head_dropout: {{type: uniform, low: 0.05, high: 0.25, default: 0.1}}
    lr_pretrain: {{type: loguniform, low: 5.0e-4, high: 2.0e-3, default: 1.0e-3}}
    weight_decay: {{type: loguniform, low: 1.0e-5, high: 1.0e-3, default: 1.0e-4}}
  fixed:
    stage1_epochs: 100    # with early stopping
    stage2_epochs: 20
    freeze_encoder_stage2: true
  priors:
    baseline:    # the default configuration runs first
      params:
        encoder_latent_dim: 128
        encoder_hidden_dims: "512_256"
        encoder_dropout: 0.2
        chi_head_dropout: 0.1
        lr_pretrain: 1.0e-3
        weight_decay: 1.0e-4
search: {{sampler: tpe, n_startup_trials: 10, seed: 42}}
scheduler: {{name: wilcoxon}}    # worse than the best trial in each of the first two folds: stopped
budget:
  n_trials: {n_trials}
  plateau: null
  timeout_hours: 48
resources: {{cpu: 1}}
tracking: {{wandb: auto}}    # online when logged in, offline otherwise; or off
results: results
"""
_SMILES = (
    '    smiles: {column}    # becomes descriptors of the molecules; needs RDKit (pip install "tune-lora[chem]")\n'
)
_KEY = "    # key: COLUMN    # which entity a row is, in both tables; without it {without}\n"


def recognise(asked: Asked) -> str:
    """Two tables: that is said, not seen."""
    return "two tables" if asked.stage1 is not None else ""


def write(asked: Asked, file: Path) -> str:
    """The study of two tables.

    Raises:
        InputError: there are no two tables, or the column to be predicted is not in both.
    """
    if asked.stage1 is None:
        raise InputError("--task transfer: needs two tables; must have --stage1 FILE, the one with computed labels")
    named = {"stage1": asked.stage1, "stage2": asked.path}
    for table in named.values():
        if not columns(table):
            raise InputError(f"{table}: must be a table (.csv, .tsv, .parquet) that exists")
    target = must_have(asked.path, columns(asked.path), asked.target)
    must_have(asked.stage1, columns(asked.stage1), target)
    return TEMPLATE.format(
        file=shlex.quote(str(file)),
        name=scalar(asked.name),
        target=scalar(target),
        stage1=Asked(asked.stage1).seen_from(file),
        stage2=asked.seen_from(file),
        stage1_name=asked.stage1.name,
        stage2_name=asked.path.name,
        smiles1=_smiles(asked.stage1),
        smiles2=_smiles(asked.path),
        key1=_key(asked.stage1),
        key2=_key(asked.path),
        n_trials=asked.n_trials,
    )


def _smiles(table: Path) -> str:
    """The line of a column of SMILES, where one is called so."""
    found = next((name for name in columns(table) if name.lower() == "smiles"), None)
    return "" if found is None else _SMILES.format(column=f"{{column: {scalar(found)}}}")


def _key(table: Path) -> str:
    """The line that waits for the name of a column."""
    return _KEY.format(without="its molecules say so" if _smiles(table) else "nothing can be excluded from stage 1")
