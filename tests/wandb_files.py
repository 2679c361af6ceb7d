"""What the files of W&B runs hold, read as the client itself reads them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, FILE_HEADER, CHUNK_HEADER = 32768, 7, 7
FULL, LAST = 1, 4


def records_of(run: Path) -> Iterator[Any]:
    """A run's file on disk: a log of chunks (checksum 4, length 2, kind 1 bytes) in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    (path,) = run.glob("*.wandb")
    log = path.read_bytes()
    assert log.startswith(b":W&B")
    at, message = FILE_HEADER, b""
    while at + CHUNK_HEADER <= len(log):
        if BLOCK - at % BLOCK < CHUNK_HEADER:  # a block's last bytes are filled up
            at += BLOCK - at % BLOCK
        length, kind = struct.unpack_from("<HB", log, at + 4)
        message += log[at + CHUNK_HEADER : at + CHUNK_HEADER + length]
        at += CHUNK_HEADER + length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            message = b""
            yield record


@dataclass
class RunOnDisk:
    """A run as its file tells it."""

    folder: Path
    id: str = ""
    name: str = ""
    project: str = ""
    group: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[Any] = field(default_factory=list)
    step_metrics: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def steps(self) -> list[int]:
        """The step of each history line."""
        return [line["_step"] for line in self.history]

    def tables(self) -> list[tuple[dict[str, Any], list[Path]]]:
        """Each table of images, with the files of its pictures: what an upload reads, out of the artifacts."""
        found = []
        for artifact in self.artifacts:
            held = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
            if (table := held.pop("images.table.json", None)) is not None:
                found.append((json.loads(table.read_text()), list(held.values())))
        return found


def run_of(folder: Path) -> RunOnDisk:
    """Reads a run's folder."""
    run = RunOnDisk(folder)
    for record in records_of(folder):
        kind = record.WhichOneof("record_type")
        told = getattr(record, kind)
        if kind == "run":
            run.id, run.name, run.project = told.run_id, told.display_name, told.project
            run.group, run.tags = told.run_group, list(told.tags)
            run.config |= _values(told.config.update)
        elif kind == "history":
            run.history.append(_values(told.item))
        elif kind == "summary":
            run.summary |= _values(told.update)
        elif kind == "artifact":
            run.artifacts.append(told)
        elif kind == "exit":
            run.exit_code = told.exit_code
        elif kind == "metric":
            run.step_metrics[told.name or told.glob_name] = told.step_metric
    return run


def runs_in(files: Path) -> dict[str, RunOnDisk]:
    """The runs in a folder ``wandb`` by name; asserts that none is there twice."""
    runs = [run_of(folder) for folder in sorted(files.glob("offline-run-*"))]
    assert len({run.name for run in runs}) == len(runs), [run.name for run in runs]
    return {run.name: run for run in runs}


def _values(items: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        *outer, last = [item.key] if item.key else item.nested_key
        inner = found
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[last] = json.loads(item.value_json)
    return found
