"""The frozen language model and its tokenizer: loaded once per worker, from a folder, a GGUF file or a hub name."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from trainables.lora.layers import can_be_adapted
from trainables.lora.precision import DTYPES
from trainables.lora.targets import Targets
from trainables.lora.text import conv1d as _conv1d  # noqa: F401  # with it, GPT-2's layers can be adapted
from trainables.lora.text.hub import folder_of_hub_model
from trainables.lora.text.quantization import keep_trainable, quantization_config
from trainables.lora.text.sources import TextSource, digest_of, identity_of, resolve
from trainables.node_lock import only_one
from trainables.paths import cache_folder
from tune_lora.errors import InputError

ATTENTION = (
    "q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "query_key_value", "query", "key", "value", "Wqkv", "dense",
    "out_proj", "c_attn", "attn.c_proj",
)  # fmt: skip
"""What the linear layers around attention are called in the families of models."""
_READ_BY_MAMBA = ("dt_proj", "out_proj")
_OF_EXPERTS = 3
"""Dimensions of weights that several experts have together."""


@dataclass
class TextBase:
    """A causal language model whose weights never change; adapters come and go. `identity` names the exact weights."""

    model: Any
    tokenizer: Any
    identity: str
    label: str
    device: torch.device

    @property
    def pad(self) -> int:
        """A token id to pad with; what it is does not matter, since it is never looked at."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(int(token) for token in known if token is not None)

    def require_positions(self, length: int) -> None:
        """Raises InputError where rows of `length` tokens are longer than the model has positions for."""
        most = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if isinstance(most, int) and length > most:
            raise InputError(f"max_length: got {length}; must be at most {most}, the positions that the base model has")

    def targets(self, name: str) -> Targets:
        """The layers of ``attention``, or of ``all``: every linear layer but the head.

        Raises:
            InputError: the model has no such layer.
        """
        without = tuple(self._left_out())
        targets = Targets(ATTENTION, without=without) if name == "attention" else Targets(without=without)
        if not any(True for _ in targets.layers(self.model)):
            kind = type(self.model).__name__
            linear = sum(can_be_adapted(module) for module in self.model.modules())
            raise InputError(
                f"base {self.label}: {kind} has no linear layer for lora_targets {name}; must be a model with some "
                f"({linear} linear layers in all)"
            )
        return targets

    def _left_out(self) -> Iterator[str]:
        """The head, and layers whose weights the model reads in place of calling them: no other reader of an adapter,
        peft's least of all, would notice it there."""
        head = self.model.get_output_embeddings()
        for name, module in self.model.named_modules():
            if module is head:
                yield name
            if "Mamba" in type(module).__name__:
                yield from (f"{name}.{child}" for child in _READ_BY_MAMBA if hasattr(module, child))

    def notes(self) -> list[str]:
        """What a person should know of the model."""
        experts = {
            type(module).__name__: None
            for module in self.model.modules()
            if not isinstance(module, nn.Conv1d)
            for parameter in module.parameters(recurse=False)
            if parameter.ndim == _OF_EXPERTS
        }
        if not experts:
            return []
        return [f"experts ({', '.join(experts)}) get no LoRA: their weights stand in one tensor, which is no layer"]


def load_tokenizer(base: str) -> Any:
    """The tokenizer alone: enough to count tokens.

    Raises:
        InputError: there is none, or it cannot say which characters a token stands for.
    """
    with _readable(base):
        return _tokenizer(resolve(base))


def load(
    base: str, *, precision: str = "fp32", quantization: str = "none", device: torch.device | None = None
) -> TextBase:
    """Loads the base frozen, in evaluation mode, held in `precision` (a quantised one computes in it).

    Raises:
        InputError: it is not a causal language model, or cannot be quantised here.
    """
    source, device = resolve(base), device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    quiet()
    with _readable(base):
        folder = _model_folder(source, precision)
        model = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=DTYPES[precision],
            local_files_only=True,
            trust_remote_code=False,  # a model's folder may bring Python files: they are never run
            quantization_config=quantization_config(quantization, DTYPES[precision]),
            device_map={"": device} if quantization != "none" else None,
        )
        tokenizer = _tokenizer(source)
    if quantization == "none":
        model.to(device)
    keep_trainable(model)
    model.requires_grad_(False)
    model.eval()
    model.config.use_cache = True
    return TextBase(model, tokenizer, identity_of(folder), source.label, device)


def quiet() -> None:
    """No bars and no advice from the libraries: a study has a view of its own."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@contextmanager
def _readable(base: str) -> Generator[None, None, None]:
    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"base {base!r} cannot be loaded as a causal language model: {reason}") from error


# --- in which folder they lie ----------------------------------------------------------------------------------------


def _tokenizer(source: TextSource) -> Any:
    folder = source.path
    if source.kind == "hub":
        folder = folder_of_hub_model(source.place, weights=False)
    if source.kind == "gguf":
        folder = _cached(_text_base(source.path) / "tokenizer", _write_tokenizer, source.path)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise InputError(f"base {source.label}: its tokenizer tells no offsets; must have a tokenizer.json")
    return tokenizer


def _model_folder(source: TextSource, precision: str) -> Path:
    """A folder in Hugging Face's layout; what a GGUF file holds is dequantised into the cache once, as safetensors that
    processes map instead of reading."""
    if source.kind == "hub":
        return folder_of_hub_model(source.place)
    if source.kind == "folder":
        return source.path
    return _cached(_text_base(source.path) / precision, _write_model, source.path, DTYPES[precision])


def _text_base(file: Path) -> Path:
    return cache_folder() / "text-base" / digest_of(file)


def _cached(target: Path, write: Callable[..., None], file: Path, *more: Any) -> Path:
    """The folder, which `write` fills the first time; whole or absent."""
    if target.is_dir():
        return target
    with only_one(target):
        if not target.is_dir():  # another process may have filled it while this one waited
            _fill(target, write, file, *more)
    return target


def _fill(target: Path, write: Callable[..., None], file: Path, *more: Any) -> None:
    quiet()
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, suffix=".part"))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a bar that cannot be turned off
            write(scratch, {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}, *more)
        if not target.exists():  # where the disk has no locks, somebody with the same content
            scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_tokenizer(folder: Path, gguf: dict[str, str]) -> None:
    AutoTokenizer.from_pretrained(**gguf, local_files_only=True, trust_remote_code=False).save_pretrained(folder)


def _write_model(folder: Path, gguf: dict[str, str], dtype: torch.dtype) -> None:
    model = AutoModelForCausalLM.from_pretrained(**gguf, local_files_only=True, trust_remote_code=False, dtype=dtype)
    # It is plain tensors now; transformers would refuse to write what it takes for a quantised model.
    model.hf_quantizer = None
    model.config.__dict__.pop("quantization_config", None)
    model.save_pretrained(folder)
