"""Weights of a base, mapped from files, so that all processes of a node share one copy of them.

A file that holds a part under the library's names, in the precision that is wanted, is mapped as it lies there. Any
other (a single checkpoint, half precision, old names) is read by the library once and kept in the cache as such a
file. Mappings are private: whoever writes to a weight gets a page of their own, and no file changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm, load_single_file_checkpoint
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from trainables.lora.files import write_whole
from trainables.node_lock import only_one
from trainables.paths import cache_folder

CLASSES: Mapping[str, type[torch.nn.Module]] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}
_TOKENIZERS = ("tokenizer", "tokenizer_2")
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_SETTLED_SECONDS = 2.0  # a file that was written this recently may be written again within its time stamp


class Incomplete(Exception):
    """Weights are missing; the message names the first."""


def load_part(part: str, source: Path, config: Path, identity: str, dtype: torch.dtype) -> torch.nn.Module:
    """One part of a pipeline with its weights mapped.

    `source` is the diffusers folder or the checkpoint file, `config` the folder with the parts' configurations.

    Raises:
        Incomplete: the source lacks weights of this part.
        OSError, ValueError, KeyError, RuntimeError, SafetensorError: as the libraries have it, of damaged files.
    """
    model = _empty(part, config)
    file = _own_file(part, source)
    if file is None or not _fits(file, model, dtype):
        kind = str(dtype).removeprefix("torch.")
        file = cache_folder() / "bases" / identity / f"{part}-{kind}.safetensors"
        if not _fits(file, model, dtype):
            with only_one(file):
                if not _fits(file, model, dtype):
                    _prepare(part, source, config, dtype, file)
    model.load_state_dict(load_file(file), strict=True, assign=True)
    return model.requires_grad_(False).eval()


def identity_of(source: Path) -> str:
    """SHA-256 of a checkpoint file; of a folder, of the names and contents of its networks and tokenizers."""
    if source.is_file():
        return _file_digest(source)
    digest = hashlib.sha256()
    parts = [folder for name in (*CLASSES, *_TOKENIZERS) if (folder := source / name).is_dir()]
    for file in sorted(path for folder in parts for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(source).as_posix()}:{_file_digest(file)}\n".encode())
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, remembered by place, size and time: hashing gigabytes takes seconds."""
    state = path.stat()
    stamp = {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "inode": state.st_ino}
    note = cache_folder() / "digests" / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()}.json"
    if (known := _noted(note, stamp)) is not None:
        return known
    with only_one(note):
        if (known := _noted(note, stamp)) is not None:  # by another process while this one waited
            return known
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if time.time() - state.st_mtime > _SETTLED_SECONDS:
            write_whole(note, lambda scratch: scratch.write_text(json.dumps(stamp | {"sha256": found}), "utf-8"))
    return found


def _noted(note: Path, stamp: Mapping[str, int]) -> str | None:
    """What was remembered of a file that was as `stamp` says."""
    try:
        known = json.loads(note.read_text("utf-8"))
        if isinstance(known, dict) and {name: known.get(name) for name in stamp} == stamp:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError):
        pass  # not known, or not readable: found anew
    return None


def _empty(part: str, config: Path) -> Any:
    """The network without values."""
    cls: Any = CLASSES[part]
    with init_empty_weights():
        if issubclass(cls, UNet2DConditionModel | AutoencoderKL):
            return cls.from_config(cls.load_config(str(config / part), local_files_only=True))
        return cls(CLIPTextConfig.from_pretrained(str(config / part), local_files_only=True))


def _own_file(part: str, source: Path) -> Path | None:
    """The only weights file of a part, if there is one."""
    files = sorted((source / part).glob("*.safetensors")) if source.is_dir() else []
    plain = [file for file in files if file.name.count(".") == 1]  # others are variants, as model.fp16.safetensors
    chosen = plain or files
    return chosen[0] if len(chosen) == 1 else None


def _fits(file: Path, model: torch.nn.Module, dtype: torch.dtype) -> bool:
    """Whether a file holds just the weights of `model`, in this precision."""
    wanted = {name: (list(tensor.shape), _DTYPES[dtype]) for name, tensor in model.state_dict().items()}
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
            return wanted == {name: (part.get_shape(), part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError):
        return False


def _prepare(part: str, source: Path, config: Path, dtype: torch.dtype, file: Path) -> None:
    """Lets the library read the part, and stores what it read."""
    read = _read_from_folder if source.is_dir() else _read_from_checkpoint
    model = read(part, source, config, dtype)
    state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items() if not tensor.is_meta}
    absent = [name for name in model.state_dict() if name not in state]
    if absent:
        raise Incomplete(f"{part}.{absent[0]}")
    write_whole(file, lambda scratch: save_file({name: value.contiguous() for name, value in state.items()}, scratch))


def _read_from_folder(part: str, source: Path, _: Path, dtype: torch.dtype) -> Any:
    cls: Any = CLASSES[part]
    file = _own_file(part, source)
    variant = file.name.split(".")[1] if file is not None and file.name.count(".") == 2 else None
    options = {"dtype": dtype, "variant": variant, "local_files_only": True}
    model, found = cls.from_pretrained(str(source / part), output_loading_info=True, **options)
    if missing := sorted(found["missing_keys"]):  # transformers fills them with random numbers
        raise Incomplete(f"{part}.{missing[0]}")
    return model


def _read_from_checkpoint(part: str, source: Path, config: Path, dtype: torch.dtype) -> Any:
    cls: Any = CLASSES[part]
    if issubclass(cls, UNet2DConditionModel | AutoencoderKL):
        return cls.from_single_file(
            str(source), config=str(config), subfolder=part, torch_dtype=dtype, local_files_only=True
        )
    checkpoint = load_single_file_checkpoint(str(source), local_files_only=True)
    return create_diffusers_clip_model_from_ldm(
        cls, checkpoint, subfolder=part, config=str(config), torch_dtype=dtype, local_files_only=True
    )
