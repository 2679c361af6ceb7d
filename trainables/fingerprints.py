"""Digests of what a trainer reads, by which a study knows its data again wherever they lie now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

FORM = "1"
"""Of what goes into a fingerprint, and how: those of two forms say nothing of each other."""
WHOLE = 256 * 2**20
"""Bytes of files that are read for a fingerprint, well under a second from memory. Of more than these the size of each
file counts in place of its content: a picture that was edited or saved anew hardly ever keeps its size."""


def fingerprint(values: Iterable[str | np.ndarray | Sequence[str]], files: Iterable[Path] = ()) -> str:
    """``form:digest`` of values and of the content of files, in this order. Names, places and times of files do not
    count, so what was moved or copied is still the same.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for value in values:
        content = _bytes_of(value)
        digest.update(f"{len(content)}:".encode() + content)
    paths = list(files)
    sizes = [path.stat().st_size for path in paths]
    digest.update(json.dumps(sizes).encode())
    if sum(sizes) <= WHOLE:
        for path in paths:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{FORM}:{digest.hexdigest()}"


def same(one: str, other: str) -> bool:
    """Whether nothing speaks against it that two fingerprints are of the same data."""
    return one == other or one.partition(":")[0] != other.partition(":")[0]


def _bytes_of(value: str | np.ndarray | Sequence[str]) -> bytes:
    if isinstance(value, np.ndarray):
        return f"{value.dtype.str}{value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    return json.dumps(value).encode()
