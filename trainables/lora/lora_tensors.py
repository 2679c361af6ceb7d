"""The tensors of a LoRA file in pairs, and what its header says; no base is needed for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from trainables import json_text
from trainables.lora import peft_layout
from tune_lora.errors import InputError

WANTED = "must be a LoRA in diffusers' (lora_A, lora_B) or kohya's (lora_down, lora_up) layout"
# The endings under which the two matrices of a module are known, ours and kohya's first.
_PAIRS = (
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
)
_MIDDLE = ".lora_mid.weight"
_LENGTHS = (".dora_scale", ".lora_magnitude_vector", ".lora_magnitude_vector.weight")
_OTHER_METHODS = {
    ".hada_w": "LoHa",
    ".lokr_w": "LoKr",
    ".oft_": "OFT",
    ".on_input": "(IA)3",
    ".a1.weight": "GLoRA",
    ".w_norm": "trained norms",
    ".diff": "full weights",
}
_TRAINERS = {
    "tune_lora_params": "tune-lora",
    "tune_lora_trial": "tune-lora",
    "ot_config": "OneTrainer",
    "ss_network_module": "kohya's sd-scripts",
    peft_layout.HEADER: "diffusers",
}


@dataclass(frozen=True)
class LoraPair:
    """One module in fp32: `down` (rank, inputs, ...), `up` (outputs, rank, ...), the `lengths` (outputs,) of DoRA.

    `alpha` is None where the file has none for it.
    """

    stem: str
    down: torch.Tensor
    up: torch.Tensor
    alpha: float | None = None
    lengths: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        """Rows of `down`."""
        return int(self.down.shape[0])

    @property
    def inputs(self) -> int:
        """What the module reads."""
        return int(self.down.shape[1])

    @property
    def outputs(self) -> int:
        """What it writes."""
        return int(self.up.shape[0])

    @property
    def kernel(self) -> tuple[int, ...]:
        """Of a convolution; (1, 1) of a matrix."""
        return tuple(self.down.shape[2:]) or (1, 1)


@dataclass(frozen=True)
class LoraFile:
    """A LoRA as a file has it."""

    path: Path
    pairs: tuple[LoraPair, ...] = field(repr=False)
    header: Mapping[str, str] = field(repr=False)

    def alpha(self, part: str, pair: LoraPair) -> float:
        """Alpha of a module, such that alpha over rank is its scale: from its own tensor, else from the header of
        diffusers, else its rank."""
        if pair.alpha is not None:
            return pair.alpha
        entry = _json(self.header.get(peft_layout.HEADER))
        return peft_layout.scale(entry, part, pair.stem.removeprefix(f"{part}."), pair.rank) * pair.rank

    def facts(self) -> dict[str, Any]:
        """What a person asks of a file: JSON-able, most of it from the tensors, the rest as its header has it."""
        sizes = Counter((pair.rank, self.alpha(_part_of(pair.stem), pair)) for pair in self.pairs)
        (rank, alpha), _ = sizes.most_common(1)[0]
        said = {
            "base": self.header.get("tune_lora_base") or self.header.get("ss_sd_model_name"),
            "base_version": self.header.get("ss_base_model_version"),
            "epochs": self.header.get("ss_num_epochs"),
            "steps": self.header.get("ss_steps"),
        }
        return {
            "trainer": next((name for key, name in _TRAINERS.items() if key in self.header), "unknown"),
            "modules": len(self.pairs),
            "rank": rank,
            "alpha": alpha,
            "ranks": sorted({rank for rank, _ in sizes}),
            "dora": any(pair.lengths is not None for pair in self.pairs),
            "convolutions": sum(pair.kernel != (1, 1) for pair in self.pairs),
            "resolution": self.resolution,
        } | {name: value for name, value in said.items() if value}

    @property
    def ends_in_pure_noise(self) -> bool:
        """Whether its header says that it was trained with a zero-terminal SNR."""
        return self.header.get("ss_zero_terminal_snr") == "True"

    @property
    def resolution(self) -> tuple[int, int] | None:
        """Width and height in pixels that it was trained at, where its header says so."""
        numbers = self.header.get("ss_resolution", "").strip("() ").split(",")
        if not all(number.strip().isdecimal() for number in numbers):
            return None
        width, height = (numbers * 2)[:2]
        return int(width), int(height)


def read_lora(path: Path) -> LoraFile:
    """Reads a LoRA file of any of the known layouts.

    Raises:
        InputError: it is absent, damaged, no LoRA, or of a method that is not read here.
    """
    tensors, header = _read(path)
    return LoraFile(path, tuple(_pairs(path, tensors)), header)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], Mapping[str, str]]:
    if not path.is_file():
        raise InputError(f"{path} does not exist; {WANTED}, a .safetensors file")
    if path.suffix != ".safetensors":
        raise InputError(f"{path} is a {path.suffix or 'plain'} file; {WANTED}, a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            _refuse_other_methods(path, names)
            if not any(name.endswith(down) for name in names for down, _ in _PAIRS):
                got = ", ".join(names[:2]) or "nothing"
                raise InputError(f"{path} is not a LoRA: it holds {got}; {WANTED}")
            return {name: file.get_tensor(name).float() for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} cannot be read as safetensors ({reason}); {WANTED}") from None


def _refuse_other_methods(path: Path, names: list[str]) -> None:
    for mark, method in _OTHER_METHODS.items():
        if found := [name for name in names if mark in name]:
            raise InputError(f"{path} holds {method} ({found[0]}); {WANTED}")


def _pairs(path: Path, tensors: Mapping[str, torch.Tensor]) -> Iterator[LoraPair]:
    used: set[str] = set()
    for name in tensors:
        ending = next((one for one in _PAIRS if name.endswith(one[0])), None)
        if ending is None:
            continue
        stem = name.removesuffix(ending[0])
        down, up = _matrices(path, tensors, stem, *ending)
        alpha = tensors.get(f"{stem}.alpha")
        lengths = next((tensors[stem + one] for one in _LENGTHS if stem + one in tensors), None)
        rows = None if lengths is None else _rows(path, stem, lengths, int(up.shape[0]))
        yield LoraPair(stem, down, up, None if alpha is None else float(alpha), rows)
        used |= {stem + one for one in (*ending, *_LENGTHS, _MIDDLE, ".alpha")}
    if strange := sorted(set(tensors) - used):
        raise InputError(f"{path}: {strange[0]} belongs to no pair of matrices; {WANTED}")


def _matrices(
    path: Path, tensors: Mapping[str, torch.Tensor], stem: str, down_ending: str, up_ending: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both matrices of a module; the third one of a Tucker decomposition is multiplied into the first."""
    down, up, middle = tensors[stem + down_ending], tensors.get(stem + up_ending), tensors.get(stem + _MIDDLE)
    if middle is not None and middle.dim() == down.dim() == 4 and middle.shape[1] == down.shape[0]:
        down = torch.einsum("rskl,sixy->rikl", middle, down)
    if up is None or down.dim() < 2 or up.dim() < 2 or down.shape[0] != up.shape[1]:
        raise InputError(f"{path}: {stem} has no matching pair of matrices; {WANTED}")
    return down, up


def _rows(path: Path, stem: str, lengths: torch.Tensor, outputs: int) -> torch.Tensor:
    """DoRA's lengths (outputs,); some trainers have one for each input instead."""
    is_by_row = lengths.shape[0] == outputs or tuple(lengths.shape) == (1, outputs, 1, 1)
    if not is_by_row or lengths.numel() != outputs:
        raise InputError(f"{path}: {stem} has DoRA lengths of shape {tuple(lengths.shape)}; must be one an output")
    return lengths.flatten()


def _part_of(stem: str) -> str:
    return stem.partition(".")[0]


def _json(text: str | None) -> Mapping[str, Any]:
    try:
        found = json_text.parse(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
