"""Entries of the cache: tensors by a name that says what they were made of; whole, made once, and made again when
damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from trainables.lora.files import write_whole
from trainables.node_lock import only_one

Tensors = Mapping[str, torch.Tensor]
_DIGEST = "sha256"


def entry(path: Path, make: Callable[[], Tensors]) -> Tensors:
    """What is stored at `path`; made and stored where it is absent or damaged.

    Processes that need the same entry at the same time wait for the first of them. What is returned is mapped from
    the file: processes of a node share it, and it must not be written to.
    """
    if (found := _read(path)) is not None:
        return found
    with only_one(path):
        if (found := _read(path)) is not None:  # made while this one waited
            return found
        made = {name: tensor.contiguous() for name, tensor in make().items()}
        write_whole(path, lambda scratch: save_file(made, scratch, {_DIGEST: _digest(made)}))
    return load_file(path)


def _read(path: Path) -> Tensors | None:
    try:
        with safe_open(path, framework="pt") as file:
            expected = (file.metadata() or {}).get(_DIGEST)
        found = load_file(path)
    except (SafetensorError, OSError):
        return None
    return found if _digest(found) == expected else None


def _digest(tensors: Tensors) -> str:
    """SHA-256 of names, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
