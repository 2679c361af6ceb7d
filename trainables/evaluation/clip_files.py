"""Where ViT-B/32 weights lie on this machine, and how they are read. Never the network."""

from __future__ import annotations

import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import open_clip
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file

from tune_lora.errors import InputError

_HUB_REPOSITORIES = (
    "timm/vit_base_patch32_clip_224.openai",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "timm/vit_base_patch32_clip_224.laion2b_s34b_b79k",
    "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
)
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
_CLIP_CACHE = ("ViT-B-32.pt", "vit_b_32-*.pt")
_QUICK_GELU_NAMES = ("openai", "quickgelu", "metaclip", "dfn")
_UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, SafetensorError)
_QUICK_GELU, _GELU = "ViT-B-32-quickgelu", "ViT-B-32"


def cached() -> Path | None:
    """ViT-B/32 weights in the Hugging Face hub's cache or in the cache that open_clip and OpenAI's package share."""
    return next(_cached(), None)


def _cached() -> Iterator[Path]:
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    hub = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", home / "huggingface")) / "hub"
    for repository in _HUB_REPOSITORIES:
        for name in _HUB_FILES:
            found = try_to_load_from_cache(repository, name, cache_dir=str(hub))
            if isinstance(found, str):
                yield Path(found)
    for pattern in _CLIP_CACHE:
        yield from sorted((Path.home() / ".cache" / "clip").glob(pattern))


def read_vit_b32(path: Path) -> open_clip.CLIP:
    """ViT-B/32 in fp32 from a ``.safetensors``, ``.pt`` or ``.bin`` file, or a folder that holds one.

    Understands open_clip's and OpenAI's state dicts and OpenAI's TorchScript archives.

    Raises:
        InputError: there are no such weights.
    """
    file = _file_in(path) if path.is_dir() else path
    wanted = f"{file}: must be ViT-B/32 weights as open_clip or OpenAI store them (.safetensors, .pt, .bin)"
    state, scripted = _read(file, wanted)
    model = open_clip.CLIP(**_architecture(file, scripted))
    needed = model.state_dict()
    # OpenAI's archives carry three whole numbers beside the weights; others carry buffers that the model makes itself.
    found = {name: value.float() for name, value in state.items() if name in needed}
    missing = [name for name in needed if name not in found]
    if missing:
        raise InputError(f"{wanted}; got a file without {missing[0]}, with {', '.join(list(state)[:2]) or 'nothing'}")
    wrong = next((name for name, value in needed.items() if found[name].numel() != value.numel()), None)
    if wrong is not None:
        shapes = f"{tuple(found[wrong].shape)}, must be {tuple(needed[wrong].shape)}"
        raise InputError(f"{wanted}; got {wrong} of shape {shapes}")
    model.load_state_dict({name: value.reshape(needed[name].shape) for name, value in found.items()})
    return model.eval()


def _file_in(folder: Path) -> Path:
    for name in _HUB_FILES:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: no ViT-B/32 weights here; must hold one of {', '.join(_HUB_FILES)}")


def _read(file: Path, wanted: str) -> tuple[dict[str, torch.Tensor], bool]:
    """The tensors of a file, and whether it is a TorchScript archive."""
    if not file.is_file():
        raise InputError(f"{wanted}; got a path that does not exist")
    try:
        if file.suffix != ".safetensors" and _is_torchscript(file):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                return dict(torch.jit.load(file, map_location="cpu").state_dict()), True
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except _UNREADABLE as error:
        raise InputError(f"{wanted}; got a file that cannot be read ({type(error).__name__})") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # a training checkpoint of open_clip
    if not isinstance(state, dict):
        raise InputError(f"{wanted}; got a {type(state).__name__}")
    tensors = {str(name).removeprefix("module."): value for name, value in state.items()}
    return {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}, False


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def _architecture(file: Path, scripted: bool) -> dict[str, object]:
    """open_clip's settings of ViT-B/32. Weights do not say which GELU they need: the file's surroundings do."""
    beside = file.with_name("open_clip_config.json")
    if beside.is_file():
        quick = bool(json.loads(beside.read_text("utf-8")).get("model_cfg", {}).get("quick_gelu", False))
    else:
        # OpenAI's own archive is named just ViT-B-32.pt; the hub's folders carry the origin in their names.
        quick = scripted or any(name in str(file).lower() for name in _QUICK_GELU_NAMES)
    config = open_clip.get_model_config(_QUICK_GELU if quick else _GELU)
    if config is None:
        raise RuntimeError("open_clip does not know ViT-B-32")
    return dict(config)
