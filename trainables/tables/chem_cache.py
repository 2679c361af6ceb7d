"""What was computed of molecules, kept on disk: one file for each kind, its settings, and the versions of our code and
of RDKit."""

from __future__ import annotations

import functools
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from trainables.lora.files import write_whole
from trainables.node_lock import only_one
from trainables.paths import cache_folder

VERSION = 1
"""Of what `trainables.tables.chem` computes: other numbers for the same molecule are another version."""


def cached(kind: str, smiles: Sequence[str], width: int, compute: Callable[[str], np.ndarray]) -> np.ndarray:
    """Rows of numbers by canonical SMILES, ``(n, width)`` float64; computed only where they are not kept yet.

    Processes that need the same rows at the same time wait for the first of them. A file that cannot be read is made
    anew.
    """
    path = cache_folder() / "chem" / f"{kind}-v{VERSION}-rdkit-{_version()}.npz"
    known, made = _load(path, width), dict[str, np.ndarray]()
    if not known.keys() >= set(smiles):
        with only_one(path):  # what another process computes meanwhile is not computed here
            known = _load(path, width)
            made = {
                one: np.asarray(compute(one), dtype=np.float64) for one in dict.fromkeys(smiles) if one not in known
            }
            if made:
                _keep(path, _load(path, width) | made)  # where the disk has no locks, others wrote meanwhile
    return np.array([made[one] if one in made else known[one] for one in smiles]).reshape(len(smiles), width)


def _load(path: Path, width: int) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as kept:
            names, values = kept["smiles"], kept["values"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return {}
    if values.shape != (len(names), width):
        return {}
    return dict(zip(names.tolist(), values, strict=True))


def _keep(path: Path, rows: dict[str, np.ndarray]) -> None:
    names, values = np.array(list(rows)), np.stack(list(rows.values()))
    write_whole(path, lambda scratch: np.savez_compressed(scratch, smiles=names, values=values))


@functools.lru_cache(maxsize=1)
def _version() -> str:
    import rdkit

    return str(rdkit.__version__)
