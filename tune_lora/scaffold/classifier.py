"""A commented study file for labelled images, texts or rows of a table."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from trainables.classification.source import FILE_NAME
from trainables.lora.pictures import IMAGE_SUFFIXES
from tune_lora.errors import InputError
from tune_lora.scaffold import roles
from tune_lora.scaffold.asked import Asked, scalar
from tune_lora.scaffold.columns import (
    TABLES,
    are_examples_of_text,
    columns,
    label_among,
    listing_in,
    must_have,
)

MANY_FEATURES = 30
"""More are not listed in the study file, unless they must be."""
TEMPLATE = """\
# Tunes a classifier: {what}.
#
#   tune-lora validate {file}     says what is wrong, starts nothing
#   tune-lora sample {file}       what would be tried
#   tune-lora run {file}          the search; run it again to go on
#   tune-lora train --config {results}/best_config.yaml --epochs 50    trains the best
name: {name}
trainer: classifier
data:
  path: {path}
{data}  # group: COLUMN    # accuracy by group, and training that minds the worst (see docs/classifiers.md)
  held_out_share: 0.2    # of each class, to judge by
# cross_validation: {{enabled: true, n_folds: 5}}    # judges a trial by every row, at five times the cost
# Where trials are few, tune in this order: learning rate, batch size, epochs, scheduler, architecture, optimizer.
# To try one more, take away its `# ` below, and its line under `fixed` where it has one.
space:
  name: {name}-space
  parameters:
    # 1. learning rate
    optimizer.lr: {{type: loguniform, low: 1.0e-4, high: 1.0e-2, default: 1.0e-3}}
    # 2. batch size
    training.batch_size: {{type: categorical, choices: [32, 64], default: 32}}
    # 3. epochs
    # training.epochs: {{type: categorical, choices: [10, 20, 50], default: 10}}
    # 4. scheduler
    # scheduler.type: {{type: categorical, choices: [none, linear, step, cosine], default: cosine}}
    # scheduler.step_size: {{type: int, low: 5, high: 20, default: 15}}    # epochs, of step
    # scheduler.gamma: {{type: uniform, low: 0.1, high: 0.5, default: 0.1}}    # what a step leaves
    # 5. architecture
{architectures}    # model.dropout: {{type: uniform, low: 0.1, high: 0.5, default: 0.2}}
    # 6. optimizer
    # optimizer.type: {{type: categorical, choices: [sgd, adam, adamw], default: adam}}
    # optimizer.momentum: {{type: uniform, low: 0.8, high: 0.99, default: 0.9}}    # of sgd
    # optimizer.weight_decay: {{type: loguniform, low: 1.0e-6, high: 1.0e-2, default: 1.0e-4}}
  fixed:
    training.epochs: 10    # a test; 20-30 are a quick check, 50-100 a run
    # training.early_stopping: 5    # epochs without a better validation value
    scheduler.type: cosine
    optimizer.type: adam
{fixed}objective: {{metric: val_acc, direction: maximize}}    # or {{metric: val_loss, direction: minimize}}
search: {{sampler: tpe, n_startup_trials: 8, seed: 42}}
scheduler: {{name: asha, grace: 3, eta: 2}}    # no trial is stopped before epoch 3; then the better half goes on
budget:
  n_trials: {n_trials}
  # timeout_hours: 8
resources: {{cpu: 1}}    # of one trial; a GPU is used where there is one
tracking: {{wandb: auto}}    # online when logged in, offline otherwise; or off
results: results
"""
_IMAGE_ARCHITECTURES = """\
    # model.architecture: {type: categorical, choices: [resnet_mini, resnet18, resnet34, resnet50, efficientnet_b0]}
"""
_IMAGE_FIXED = """\
    model.architecture: resnet_mini    # small images and no GPU; else resnet18, resnet34, resnet50, efficientnet_b0
    data.image_size: 64    # pixels
"""
_TABLE_ARCHITECTURES = """\
    # model.hidden: {type: categorical, choices: ["64", "128_64", "256_128"], default: "128_64"}
"""
_TEXT_ARCHITECTURES = """\
    # model.text_encoder: {type: categorical, choices: [mlp, char_cnn, transformer], default: char_cnn}
"""
_TEXT_FIXED = "    model.text_encoder: char_cnn    # mlp ignores the order of words; transformer is slower\n"


def recognise(asked: Asked) -> str:
    """Labelled images or rows."""
    path = asked.path
    listing = listing_in(path)
    if listing is not None:
        label = label_among(columns(listing), asked.target)
        return f"images with the column {label!r} in {listing.name}" if label else ""
    if path.is_dir():
        classes = _classes(path)
        return f"{len(classes)} subfolders of images" if len(classes) > 1 else ""
    if path.suffix.lower() not in TABLES:
        return ""
    label = label_among(columns(path), asked.target)
    if label is None:  # a table of which nobody said what is to be predicted: `write` asks
        return "" if are_examples_of_text(columns(path)) else "a table"
    return f"a table with the column {label!r}"


def write(asked: Asked, file: Path) -> str:
    """The study of a classifier.

    Raises:
        InputError: nothing labelled is there, or it is not said which column is the label.
    """
    what, data, shape = _described(asked)
    architectures, fixed = {
        "image": (_IMAGE_ARCHITECTURES, _IMAGE_FIXED),
        "tabular": (_TABLE_ARCHITECTURES, ""),
        "text": (_TEXT_ARCHITECTURES, _TEXT_FIXED),
    }[shape]
    return TEMPLATE.format(
        what=what,
        file=shlex.quote(str(file)),
        results=f"results/{asked.name}",
        name=scalar(asked.name),
        path=asked.seen_from(file),
        data=data,
        architectures=architectures,
        fixed=fixed,
        n_trials=asked.n_trials,
    )


def _described(asked: Asked) -> tuple[str, str, str]:
    """What is classified in words, the lines of the study's `data`, and the kind of model."""
    path = asked.path
    listing = listing_in(path)
    if listing is not None:
        names = columns(listing)
        label = must_have(listing, names, asked.target)
        roles.must_be_classes(listing, label)
        guessed = _guessed(asked)
        lines = f"  label: {scalar(label)}    # the column of {listing.name} with the class{guessed}\n"
        if "text" in names:
            lines += "  # text: text    # learn from the captions as well; do they give the class away?\n"
        return f"images by their {label} in {listing.name}", lines, "image"
    if path.is_dir():
        classes = _classes(path)
        if len(classes) < 2:
            raise InputError(
                f"{path}: holds {len(classes)} subfolders of images; must hold one a class, or a metadata.jsonl with "
                "file_name and a label"
            )
        if asked.target is not None:
            raise InputError(f"--target: got {asked.target!r}, but the classes are the subfolders; must be left out")
        return f"images of {len(classes)} classes, a subfolder each", "", "image"
    names = columns(path)
    if not names:
        raise InputError(f"{path}: must be a folder of images, or a table (.csv, .tsv, .parquet)")
    label = must_have(path, names, asked.target)
    roles.must_be_classes(path, label)
    lines = f"  label: {scalar(label)}    # the column that is predicted{_guessed(asked)}\n"
    if set(names) == {"text", label}:
        return f"texts by their {label}", lines + "  kind: text\n  text: text\n", "text"
    return f"rows of {path.name} by their {label}", lines + _features(roles.features_of(path, label)), "tabular"


def told(asked: Asked) -> list[str]:
    """What was taken for what, in sentences for the person who asked."""
    source = listing_in(asked.path) or asked.path
    label = label_among(columns(source), asked.target)
    if label is None:
        return []
    sentences = [f"predicted is {label!r}{_guessed(asked)}"]
    if source == asked.path and FILE_NAME not in columns(source) and set(columns(source)) != {"text", label}:
        found = roles.features_of(source, label)
        sentences += [f"features are {', '.join(found.names)}", *found.left_out]
    return sentences


def _guessed(asked: Asked) -> str:
    return "" if asked.target is not None else ", guessed by its name; --target COLUMN says another"


def _features(found: roles.Features) -> str:
    """The line of the features and what is left out; a long list stands as ``auto`` where that is the same."""
    comment = "".join(f"    # {sentence}\n" for sentence in found.left_out)
    if len(found.names) > MANY_FEATURES and found.are_automatic:
        return f"  features: auto    # {len(found.names)} columns of numbers\n{comment}"
    listed = yaml.safe_dump(list(found.names), default_flow_style=True, allow_unicode=True, width=1_000_000).strip()
    return f"  features: {listed}    # columns to learn from\n{comment}"


def _classes(folder: Path) -> list[Path]:
    """Subfolders that hold images."""
    subfolders = (one for one in sorted(folder.iterdir()) if one.is_dir())
    return [one for one in subfolders if any(inner.suffix.lower() in IMAGE_SUFFIXES for inner in one.iterdir())]
