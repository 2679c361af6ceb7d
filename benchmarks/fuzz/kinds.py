"""Every kind of input: how its files are drawn, and which door they are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fuzz import data_files, doors, model_files, samples, yaml_files
from benchmarks.fuzz.judging import Door


@dataclass(frozen=True)
class Kind:
    """`files` draws an input, given the folder of shared data; `door` is where it is shown."""

    files: Callable[[Path], yaml_files.Strategy]
    door: Door


KINDS: Mapping[str, Kind] = {
    "study": Kind(yaml_files.yaml_file("study.yaml", samples.studies), doors.study),
    "space": Kind(yaml_files.yaml_file("space.yaml", lambda _: samples.spaces()), doors.space),
    "yaml": Kind(yaml_files.yaml_file("document.yaml", yaml_files.every_document), doors.document),
    "set": Kind(yaml_files.arguments, doors.overridden),
    "configuration": Kind(yaml_files.configuration, doors.configuration),
    "toml": Kind(yaml_files.toml, doors.toml),
    "captions": Kind(data_files.captions, doors.images),
    "listing": Kind(data_files.listing, doors.listing),
    "images": Kind(data_files.images, doors.images),
    "table": Kind(data_files.table, doors.table),
    "parquet": Kind(data_files.parquet, doors.table),
    "molecules": Kind(data_files.molecules, doors.molecules),
    "text": Kind(data_files.text, doors.text),
    "base": Kind(model_files.tensors("base.safetensors", samples.checkpoint), doors.base),
    "lora": Kind(model_files.tensors("lora.safetensors", samples.lora), doors.lora),
    "adapter": Kind(model_files.adapter, doors.adapter),
    "weights": Kind(model_files.weights, doors.weights),
    "checkpoints": Kind(model_files.checkpoint_folder, doors.checkpoint),
    "expression": Kind(yaml_files.expression, doors.expression),
    "results": Kind(model_files.database, doors.results),
}
"""By name. To add one: how its files are drawn, and a door."""
