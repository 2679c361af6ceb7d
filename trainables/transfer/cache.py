"""Results of stage 1, kept on disk by all that they depend on, so that trials that differ in stage 2 alone share them.

One file an entry, written whole or not at all. Of trials that need the same entry at the same time on a node one trains
it (`trainables.node_lock`); on several nodes the later replaces the earlier with an equal file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from trainables.lora.files import write_whole
from trainables.transfer.data import TransferData
from trainables.transfer.scaling import Scales
from trainables.transfer.settings import Stage1Settings
from trainables.transfer.stack import Stack
from trainables.transfer.stage1 import Encoders, Stage1Task, networks

VERSION = 1
"""Of what stage 1 computes: another result for the same settings is another version."""
KEPT = 200
"""Entries, the newest; an entry is new again when it is used."""


def key_of(data: TransferData, task: Stage1Task, settings: Stage1Settings, seed: int, dtype: torch.dtype) -> str:
    """Names all that a result depends on: code, settings, seed, features, labels, and who sees which rows."""
    about = {
        "version": VERSION,
        "settings": asdict(settings),
        "seed": seed,
        "data": data.stage1_hash,
        "dtype": str(dtype),
        "torch": torch.__version__,
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for rows in (*task.train, *task.held):
        digest.update(f"{len(rows)}:".encode() + np.ascontiguousarray(rows, dtype=np.int64).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Stage1Cache:
    """Entries in one folder; None keeps nothing."""

    folder: Path | None
    kept: int = KEPT

    def find(self, key: str, inputs: int, settings: Stage1Settings) -> Encoders | None:
        """The entry of a key; one that cannot be read is absent."""
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            found = read(path, inputs, settings)
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        with suppress(OSError):  # a cache that may not be written can be read
            os.utime(path)
        return found

    def keep(self, key: str, encoders: Encoders) -> None:
        """Writes an entry and forgets the oldest; a folder that cannot be written keeps nothing."""
        if self.folder is None:
            return
        with suppress(OSError):
            write(self._path(key), encoders)
            for path in sorted(self.folder.glob("*.safetensors"), key=_age)[self.kept :]:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"


def write(path: Path, encoders: Encoders) -> Path:
    """One file: weights and scales as tensors, the curve in the header."""
    tensors = {
        "weights": encoders.stack.weights,
        "stats": encoders.stack.stats,
        "inputs.mean": encoders.inputs.mean,
        "inputs.scale": encoders.inputs.scale,
        "target.mean": encoders.target.mean,
        "target.scale": encoders.target.scale,
        "maes": torch.from_numpy(encoders.maes),
    }
    header = {"curve": json.dumps([dict(point) for point in encoders.curve])}
    whole = {name: values.contiguous() for name, values in tensors.items()}
    return write_whole(path, lambda scratch: save_file(whole, scratch, header))


def read(path: Path, inputs: int, settings: Stage1Settings) -> Encoders:
    """What `write` wrote.

    Raises:
        OSError, SafetensorError, KeyError, ValueError: it is absent or something else.
    """
    # Read at once: safetensors opens a file twice, and another trial may replace or forget it in between.
    content = path.read_bytes()
    tensors: Mapping[str, torch.Tensor] = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # the format's own layout
    curve: Any = json.loads(header["__metadata__"]["curve"])
    nets = networks(inputs, settings)
    return Encoders(
        Stack(nets, tensors["weights"], tensors["stats"]),
        Scales(tensors["inputs.mean"], tensors["inputs.scale"]),
        Scales(tensors["target.mean"], tensors["target.scale"]),
        tensors["maes"].numpy(),
        tuple(curve),
    )


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:  # forgotten by another trial
        return 0.0
