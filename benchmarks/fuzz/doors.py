"""What a user's command does with the files of an input, up to where training or a Ray session would begin."""

from __future__ import annotations

import io
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from benchmarks.fuzz.judging import mistakes_of, unclear_in
from search_spaces import documents
from trainables import checkpoints
from trainables.classification import data as classified
from trainables.classification.source import DataSource
from trainables.lora import dataset as captioned
from trainables.lora.paths import file_layout, prediction_of, resolve_base
from trainables.lora.pictures import pixels
from trainables.lora.text import dataset as texts
from trainables.lora.text import export as adapters
from trainables.lora.text.settings import TextSettings
from trainables.tables import reading
from trainables.tables.source import TableSource
from tune_lora import build, overrides, sampling, scaffold, single, sources, spec, view, wording
from tune_lora.errors import InputError, InputErrors


class EnoughError(BaseException):
    """A training has begun and made its first report, which is all that is asked here."""


def study(folder: Path) -> None:
    """``tune-lora validate study.yaml``."""
    ready = build.plan(overrides.in_study(spec.load(folder / "study.yaml"), {})).spec
    again = documents.parse(yaml.safe_dump(ready.as_mapping(passwords=True)))[0]
    if spec.from_mapping(again, "study.yaml") != ready:
        raise AssertionError("the study that is written down is another one")


def space(folder: Path) -> None:
    """``tune-lora sample space.yaml``: what comes out is printed."""
    found, search = sources.space_and_search(str(folder / "space.yaml"), {})
    for config in sampling.suggestions(found, 4, search.seed, n_startup_trials=1):
        if broken := found.violations(config):
            raise AssertionError(f"suggested what breaks {broken[0].name}: {config}")
        json.dumps(config)
        wording.settings(config)


def overridden(folder: Path) -> None:
    """``tune-lora validate study.yaml --set ...``, as `arguments.json` has them."""
    given = overrides.parse(json.loads((folder / "arguments.json").read_bytes()))
    build.plan(overrides.in_study(spec.load(folder / "study.yaml"), given))


def configuration(folder: Path) -> None:
    """``tune-lora train --config best_config.yaml`` up to the first report."""

    def watch(*_: Any) -> None:
        raise EnoughError

    output = folder / "trained"
    try:
        single.train(None, config=folder / "best_config.yaml", output=output, seed=0, watch=watch)
    except EnoughError:
        return
    except InputError as error:
        # Refused last, since that folder is somebody's: all that is checked before was right.
        if not (output / "kept.txt").exists() or f"{output} exists and is kept" not in str(error):
            raise


def table(folder: Path) -> None:
    """A table as a classifier's data and as numbers, and ``tune-lora init`` on it."""
    (path,) = (one for one in folder.iterdir() if one.stem == "table")
    mistakes = [
        error
        for read in (
            lambda: reading.read(TableSource(path, target="temp", group="group", key=("id",))),
            lambda: reading.read(TableSource(path, target="label", target_kind="class", on_bad="drop")),
            lambda: classified.read(DataSource(path, kind="tabular")),
            lambda: classified.read(DataSource(path, kind="text", text="kind", on_bad="drop")),
            lambda: initialised(path, target="label"),
        )
        if (error := _refusal(read)) is not None
    ]
    if mistakes:
        raise InputErrors(line for error in mistakes for line in mistakes_of(error))


def molecules(folder: Path) -> None:
    """Tables of two stages, with molecules and labels."""
    from trainables.tables.source import LabelSource, SmilesColumn

    pair = SmilesColumn("ps_pair", split="_", parts=("polymer", "solvent"), kind="fingerprint", bits=16)
    labels = LabelSource(folder / "table.csv", "soluble", match=("ps_pair",))
    path = folder / "table.csv"
    reading.read(TableSource(path, ("temp",), "chi", group="polymer_class", smiles=(pair,), labels=labels))


def images(folder: Path) -> None:
    """Captioned images: read, checked, and those that pass turned into pixels."""
    for image in _both(captioned.load(folder)):
        pixels(image.path, image.target)


def toml(folder: Path) -> None:
    """A dataset file of kohya's."""
    for image in _both(captioned.load(folder / "dataset.toml")):
        pixels(image.path, image.target)


def listing(folder: Path) -> None:
    """Images with a class each, listed in a metadata file."""
    found = classified.read(DataSource(folder, kind="image"))
    classified.read(DataSource(folder, text="text", on_bad="drop"))
    for image in found.images or ():
        pixels(image, 32)


def text(folder: Path) -> None:
    """Examples for a language model."""
    (path,) = (one for one in folder.iterdir() if one.stem == "text")
    texts.split(path, TextSettings())
    scaffold.recognised(scaffold.Asked(path))


def base(folder: Path) -> None:
    """A base model in one file: what it is."""
    path = resolve_base(str(folder / "base.safetensors"))
    file_layout(path)
    prediction_of(path)


def lora(folder: Path) -> None:
    """A LoRA file that is put onto the base."""
    from trainables.lora.lora_files import adapter_of_file
    from trainables.lora.lora_tensors import read_lora

    file = read_lora(folder / "lora.safetensors")
    json.dumps(file.facts())
    adapter_of_file(file, models()).detach()


def adapter(folder: Path) -> None:
    """A language model's adapter: whether it is one, and of which base."""
    adapters.require_adapter(folder)
    adapters.base_of(folder)


def weights(folder: Path) -> None:
    """Weights of a backbone."""
    from trainables.classification.backbones import mistake_of

    (path,) = folder.iterdir()
    if told := mistake_of(str(path), "resnet_mini", "4_8"):
        raise InputError(told)


def checkpoint(folder: Path) -> None:
    """A trial's checkpoints on a worker: the newest one that is whole is what it goes on from."""
    found, damaged = checkpoints.restorable(folder)
    for line in damaged:
        if (wrong := unclear_in(line, folder)) != "":
            raise AssertionError(wrong)
    if found is not None:
        held = json.loads((found.path / "curve.json").read_text("utf-8"))
        if held != {"epoch": found.budget}:
            raise AssertionError(f"goes on from what was never written: {held}")


def results(folder: Path) -> None:
    """The database of a study that was run, as ``tune-lora status`` reads it."""
    record = sources.record_of(folder)
    Console(file=io.StringIO()).print(view.panel(record, sources.planned_trials(record)), view.top_table(record))


def initialised(path: Path, **said: Any) -> None:
    """``tune-lora init`` and ``tune-lora validate`` of what it writes, which is taken away."""
    asked = scaffold.Asked(path, **said)
    output = path.parent / "made.yaml"
    file = scaffold.write_study_file(asked, task=scaffold.settled(asked), output=output)
    try:
        build.plan(spec.load(file))
    finally:
        file.unlink()


def expression(folder: Path) -> None:
    """An expression of a space, parsed and evaluated."""
    from search_spaces.expressions import parse

    try:
        found = parse((folder / "expression.txt").read_text("utf-8", "replace"))
        found(dict.fromkeys(found.names, 3))
    except InputError as error:
        raise InputError(f"expression: {error}") from None  # whoever reads one says where it stands


def document(folder: Path) -> None:
    """A YAML text."""
    documents.with_numbers(documents.read(folder / "document.yaml"))


def _refusal(read: Any) -> InputError | None:
    try:
        read()
    except InputError as error:
        return error
    return None


def _both(found: captioned.Dataset) -> tuple[captioned.CaptionedImage, ...]:
    return found.train + found.held_out


@cache
def models() -> Any:
    """The base that LoRA files are put onto."""
    import torch

    from trainables.lora import base as bases

    torch.set_num_threads(1)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return bases.load("tiny-sd").models
