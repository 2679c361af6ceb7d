"""Images and captions of one folder: a caption file beside each image, or one ``metadata.jsonl``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainables import json_text
from trainables.lora.buckets import Size
from trainables.lora.dataset_settings import Captions
from trainables.lora.pictures import IMAGE_SUFFIXES, checked_size
from trainables.paths import inside
from tune_lora.errors import InputError

METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class Captioned:
    """An image that was found whole. `digest` is the SHA-256 of its bytes, `size` its width and height."""

    path: Path
    caption: str
    digest: str
    size: Size


def read_folder(folder: Path, captions: Captions, mistakes: list[str]) -> list[Captioned]:
    """The folder's images; whatever is wrong with one goes to `mistakes`, a line each."""
    entries = _listed(folder, mistakes) if (folder / METADATA).is_file() else _beside(folder, captions, mistakes)
    found = []
    for path, caption in entries:
        try:
            size = checked_size(path)
        except InputError as error:
            mistakes.append(str(error))
            continue
        parts = (captions.caption_prefix, caption, captions.caption_suffix)
        whole = " ".join(part for part in parts if part)
        found.append(Captioned(path, whole, hashlib.sha256(path.read_bytes()).hexdigest(), size))
    return found


def _beside(folder: Path, captions: Captions, mistakes: list[str]) -> Iterator[tuple[Path, str]]:
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES):
        beside = path.with_suffix(captions.caption_extension)
        if leaving := [one for one in (path, beside) if one.is_symlink() and inside(folder, one.name) is None]:
            mistakes.append(f"{leaving[0]}: is a link that leaves the dataset's folder; must lead to a file inside it")
        elif beside.is_file():
            try:
                yield path, beside.read_text("utf-8-sig").strip()
            except UnicodeDecodeError:
                mistakes.append(f"{beside}: is not UTF-8 text; must be a caption in UTF-8")
        elif captions.class_tokens is not None:
            yield path, captions.class_tokens
        else:
            mistakes.append(f"{path}: no caption; must have {beside.name} beside it")


def _listed(folder: Path, mistakes: list[str]) -> Iterator[tuple[Path, str]]:
    if inside(folder, METADATA) is None:
        mistakes.append(f"{folder / METADATA}: is a link that leaves the dataset's folder; must be a file inside it")
        return
    try:
        # A line ends at a line feed alone: JSON allows other marks that Python takes for line ends in a caption.
        lines = (folder / METADATA).read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        mistakes.append(f"{folder / METADATA}: is not UTF-8 text; must be one JSON object a line")
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{folder / METADATA}:{number}"
        try:
            entry = json_text.parse(line)
            name, text = str(entry["file_name"]), str(entry["text"])
        except (ValueError, KeyError, TypeError):
            mistakes.append(f"{place}: must be a JSON object with file_name and text")
            continue
        if "\0" in name:
            mistakes.append(f"{place}: {name!r} is no file name")
        elif (path := inside(folder, name)) is not None:
            yield path, text
        else:
            mistakes.append(f"{place}: {name!r} is outside the dataset's folder; must be inside it")
