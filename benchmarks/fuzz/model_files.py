"""Weights, adapters, checkpoints and databases: what programs write."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from benchmarks.fuzz import samples
from benchmarks.fuzz.mutation import Draw, documents, spoilt
from benchmarks.fuzz.yaml_files import Strategy, json_file
from trainables import checkpoints


def tensors(name: str, valid: Callable[[], tuple[dict[str, Any], bytes]]) -> Callable[[Path], Strategy]:
    """A safetensors file that began as a valid one."""

    def files(_: Path) -> Strategy:
        return _tensor_file(valid).map(lambda content: {name: content})

    return files


@st.composite
def _tensor_file(draw: Draw, valid: Callable[[], tuple[dict[str, Any], bytes]]) -> bytes:
    header, data = valid()
    whole = samples.safetensors(header, data)
    match draw(st.sampled_from(["header", "header", "bytes", "numbers", "length", "overlap", "twice"])):
        case "header":
            return samples.safetensors(draw(documents([header])), data)
        case "bytes":
            return draw(spoilt(whole))
        case "numbers":
            special = draw(st.sampled_from([b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff" * 4, b"\0" * 4]))
            return samples.safetensors(header, (special * (len(data) // 4 + 1))[: len(data)])
        case "length":
            return samples.safetensors(
                header, data, draw(st.sampled_from([0, 1, 7, 2**31, 2**60, 2**64 - 1, len(whole)]))
            )
        case "overlap":
            changed = json.loads(json.dumps(header))
            for entry in changed.values():
                if "data_offsets" in entry and draw(st.booleans()):
                    ends = st.integers(-1, len(data) + 8)
                    entry["data_offsets"] = [draw(ends), draw(ends)]
            return samples.safetensors(changed, data)
        case _:
            text = json.dumps(header).encode()
            text = text[:-1] + b"," + text[1:]
            return len(text).to_bytes(8, "little") + text + data


@st.composite
def adapter(draw: Draw, _: Path) -> dict[str, bytes]:
    """A language model's adapter."""
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "a/b",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
    }
    own = {"base": "a/b", "precision": "fp32", "quantization": "none", "prompt_template": "chat"}
    said = {
        name: draw(
            st.one_of(documents([content]).map(lambda one: samples.lines([one])), spoilt(samples.lines([content])))
        )
        for name, content in (("adapter_config.json", config), ("tune_lora.json", own))
    }
    return said | {"adapter_model.safetensors": draw(_tensor_file(samples.peft))}


@st.composite
def weights(draw: Draw, _: Path) -> dict[str, bytes]:
    """Weights of a backbone."""
    if draw(st.booleans()):
        return {"weights.safetensors": draw(_tensor_file(samples.lora))}
    return {"weights.pth": draw(spoilt(_pickled(), most=3))}


def _pickled() -> bytes:
    import torch

    held = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(4, 3, 3, 3), "bn1.weight": torch.zeros(4)}, held)
    return held.getvalue()


@st.composite
def checkpoint_folder(draw: Draw, root: Path) -> dict[str, bytes]:
    """Two checkpoints of a trial, one with a file spoilt."""
    files = dict(draw(st.just(written_checkpoints(root))))
    name = draw(st.sampled_from(sorted(files)))
    spoiling = json_file(json.loads(files[name])) if draw(st.booleans()) else spoilt(files[name])
    return files | {name: draw(spoiling)}


@cache
def written_checkpoints(root: Path) -> dict[str, bytes]:
    """Both checkpoints of a trial, as they were written."""
    trial = root / "trial"
    for epoch in (1, 2):
        checkpoints.write(trial, epoch, partial(_write_epoch, epoch))
    return {str(path.relative_to(trial)): path.read_bytes() for path in trial.rglob("*") if path.is_file()}


def _write_epoch(epoch: int, folder: Path) -> None:
    (folder / "curve.json").write_text(json.dumps({"epoch": epoch}), encoding="utf-8")


def database(root: Path) -> Strategy:
    """The database of a study, spoilt."""
    return spoilt(_written_database(root), most=6).map(lambda found: {"study.db": found})


@cache
def _written_database(root: Path) -> bytes:
    from tune_lora import store

    place, whole = root / "database" / samples.CURVE["name"], root / "database" / "whole.db"
    if not whole.is_file():
        place.mkdir(parents=True, exist_ok=True)
        study = store.open_study(store.sqlite_url(place), place.name, "minimize")
        study.set_user_attr(store.SPEC, samples.CURVE)
        for value in (0.5, 0.25):
            trial = study.ask()
            trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
            study.tell(trial, value)
        with contextlib.closing(sqlite3.connect(place / "study.db")) as opened:
            opened.execute("VACUUM INTO ?", (str(whole),))  # the file alone: much may stand in its write-ahead log
    return whole.read_bytes()
