"""A valid input of each kind: the project's own shipped files, over data small enough to be read thousands of times."""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

SPACES = Path(__file__).parents[2] / "search_spaces"
STUDIES = SPACES / "studies"
Files = Mapping[str, bytes]
"""The files of one input by their names."""

TABLE = b"id,temp,size,kind,group,label\n" + b"".join(
    b"m%d,%d.5,%g,%s,g%d,%s\n" % (n, 290 + n, n * 0.25, b"ab"[n % 2 : n % 2 + 1], n % 3, b"yes" if n % 2 else b"no")
    for n in range(12)
)
CHI = "ps_pair,temp,chi,polymer_class,soluble\n" + "".join(
    f"*C{'C' * n}*_CC{'O' * (n % 2)},{290 + n},{0.1 * n},{'abcdef'[n % 6]},{n % 2}\n" for n in range(12)
)
COSMO = "ps_pair,temp,chi\n" + "".join(f"*CC{'C' * n}*_CN,{290 + n},{0.1 * n}\n" for n in range(24))
TOML = {
    "general": {"shuffle_caption": False, "keep_tokens": 1, "caption_extension": ".txt", "flip_aug": True},
    "datasets": [
        {
            "resolution": 64, "batch_size": 2, "enable_bucket": True, "min_bucket_reso": 32, "max_bucket_reso": 128,
            "bucket_reso_steps": 8, "subsets": [{"image_dir": "images", "num_repeats": 2, "caption_prefix": "bobo,"}],
        }
    ],
}  # fmt: skip
ROWS: tuple[list[dict[str, Any]], ...] = (
    [{"instruction": f"say {n}", "input": "", "output": f"it is {n}"} for n in range(4)],
    [{"prompt": f"{n} + 1?", "completion": str(n + 1)} for n in range(4)],
    [{"text": f"a line about {n}"} for n in range(4)],
    [
        {"messages": [{"role": "user", "content": f"hi {n}"}, {"role": "assistant", "content": f"hello {n}"}]}
        for n in range(3)
    ],
)
CURVE = {
    "name": "lines",
    "trainer": "curve",
    "space": {
        "name": "rates",
        "parameters": {
            "learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1},
            "max_train_epochs": {"type": "categorical", "choices": [4, 6]},
        },
    },
    "objective": {"metric": "val_loss"},
}
CURVE_CONFIG = {"learning_rate": 0.001, "max_train_epochs": 4}
LORA_CONFIG = {
    "learning_rate": 0.004, "text_encoder_lr": 0.001, "network_dim": 8, "network_alpha_ratio": 0.5, "network_alpha": 4,
    "optimizer_type": "AdamW", "lr_scheduler": "cosine", "gradient_accumulation_steps": 1, "lr_warmup_steps": 20,
    "max_train_epochs": 8, "max_grad_norm": 0.8, "min_snr_gamma": 5.0,
}  # fmt: skip
METADATA = [{"file_name": f"{n}.png", "text": f"picture {n}", "label": "ab"[n % 2]} for n in range(4)]


def as_json(value: Any) -> bytes:
    """JSON of any document; what JSON has no form for becomes text, or is left out as a key."""
    return json.dumps(value, default=str, skipkeys=True).encode("utf-8", "surrogatepass")


def lines(rows: list[Any]) -> bytes:
    """JSON Lines; what JSON has no form for becomes text."""
    return b"".join(as_json(row) + b"\n" for row in rows)


@cache
def picture(seed: int = 0, size: tuple[int, int] = (24, 24), kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A small picture of noise."""
    width, height = size
    noise = random.Random(seed).randbytes(width * height * 3)
    held = io.BytesIO()
    Image.frombytes("RGB", size, noise).convert(mode).save(held, kind)
    return held.getvalue()


def pictures(count: int = 4) -> dict[str, bytes]:
    """Pictures with a caption beside each."""
    found = {f"{n}.png": picture(n) for n in range(count)}
    return found | {f"{n}.txt": f"picture {n}, red".encode() for n in range(count)}


def write(folder: Path, files: Files) -> Path:
    """Writes an input's files; returns the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def shared(root: Path) -> Path:
    """Writes the data that study files lead to."""
    listed = {name: content for name, content in pictures().items() if name.endswith(".png")}
    rows = [{**row, "category": row["label"]} for row in METADATA]
    write(root / "character", pictures())
    write(root / "listing", {**listed, "metadata.jsonl": lines(rows)})
    tables = {"table.csv": TABLE, "chi.csv": CHI.encode(), "cosmo.csv": COSMO.encode()}
    return write(root, {**tables, "text.jsonl": lines(ROWS[0])})


@cache
def studies(root: Path) -> tuple[dict[str, Any], ...]:
    """The shipped study files, their data in `root`."""
    found = [yaml.safe_load(path.read_text("utf-8")) for path in sorted(STUDIES.glob("*.yaml"))]
    for study in found:
        _at_home(study, root)
    return (*found, CURVE)


def _at_home(study: dict[str, Any], root: Path) -> None:
    if "dataset" in study:
        study["dataset"]["path"] = str(root / "character")
        study["base"] = "tiny-sd"
    if study.get("data", {}).get("path", "demo-shapes") != "demo-shapes":
        study["data"]["path"] = str(root / "listing")
    if study.get("text"):
        study["text"]["path"] = str(root / "text.jsonl")
    for name, stage in study.get("transfer", {}).items():
        if isinstance(stage, dict) and "path" in stage:
            stage["path"] = str(root / ("cosmo.csv" if name == "stage1" else "chi.csv"))
        if isinstance(stage, dict) and "labels" in stage:
            stage["labels"]["path"] = str(root / "chi.csv")


@cache
def spaces() -> tuple[dict[str, Any], ...]:
    """The shipped spaces."""
    return tuple(yaml.safe_load(path.read_text("utf-8")) for path in sorted(SPACES.glob("*.yaml")))


def safetensors(header: Any, data: bytes, length: int | None = None) -> bytes:
    """A file of the format with any header."""
    text = as_json(header)
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@cache
def lora() -> tuple[dict[str, Any], bytes]:
    """Header and data of a LoRA that fits tiny-sd's text encoder and UNet, in kohya's layout."""
    from trainables.tiny_sd import WEIGHTS

    config = json.loads((WEIGHTS / "text_encoder" / "config.json").read_text("utf-8"))
    width = int(config["hidden_size"])
    tensors = {}
    for layer in range(2):
        stem = f"lora_te_text_model_encoder_layers_{layer}_self_attn_q_proj"
        tensors |= {
            f"{stem}.lora_down.weight": np.full((2, width), 0.5, np.float32),
            f"{stem}.lora_up.weight": np.full((width, 2), 0.5, np.float32),
            f"{stem}.alpha": np.array(1.0, np.float32),
        }
    metadata = {"ss_resolution": "(64, 64)", "ss_network_module": "networks.lora", "ss_steps": "10"}
    return headed(tensors, metadata)


@cache
def checkpoint() -> tuple[dict[str, Any], bytes]:
    """Header and data of what looks like a Stable Diffusion 1.5 in one file."""
    names = {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 1, 1),
        "first_stage_model.encoder.conv_in.weight": (8, 3, 1, 1),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 7),
    }
    return headed({name: np.zeros(shape, np.float16) for name, shape in names.items()}, {"format": "pt"})


@cache
def peft() -> tuple[dict[str, Any], bytes]:
    """Header and data of a language model's adapter."""
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    return headed({f"{stem}.lora_{one}.weight": np.zeros((2, 2), np.float32) for one in "AB"}, {"format": "pt"})


def headed(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a safetensors file."""
    from safetensors.numpy import save

    content = save(dict(tensors), dict(metadata))
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]
