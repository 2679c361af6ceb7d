"""Image encoders: torchvision's backbones without their last layer, and a narrow ResNet for small images and CPUs."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock

from trainables.classification.settings import TORCHVISION
from tune_lora.errors import InputError

HEADS = ("fc.", "classifier.")
"""Names of the last layer in torchvision's state dicts."""


class ResNetMini(nn.Module):
    """One basic block a width, the first convolution 3x3 with stride 2; features are the last width, averaged over
    space. Its tensors are named as those of torchvision's ResNet."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = len(widths)
        before = widths[0]
        for number, width in enumerate(widths, start=1):
            self.add_module(f"layer{number}", nn.Sequential(_block(before, width, stride=1 if number == 1 else 2)))
            before = width
        self.fc = nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``(n, 3, h, w)`` to ``(n, last width)``."""
        found = torch.relu(self.bn1(self.conv1(images)))
        for number in range(1, self.stages + 1):
            found = getattr(self, f"layer{number}")(found)
        pooled: torch.Tensor = found.mean(dim=(2, 3))
        return pooled


def _block(before: int, width: int, stride: int) -> BasicBlock:
    if stride == 1 and before == width:
        return BasicBlock(before, width)
    narrowed = nn.Sequential(nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
    return BasicBlock(before, width, stride, narrowed)


def build(architecture: str, widths: str = "16_32_64_128") -> tuple[nn.Module, int]:
    """A backbone with fresh weights, and the size of its features."""
    if architecture not in TORCHVISION:
        sizes = [int(width) for width in widths.split("_")]
        return ResNetMini(sizes), sizes[-1]
    network: nn.Module = getattr(models, architecture)(weights=None)
    name = "classifier" if architecture.startswith("efficientnet") else "fc"
    last = [module for module in getattr(network, name).modules() if isinstance(module, nn.Linear)][-1]
    setattr(network, name, nn.Identity())  # EfficientNet's own dropout goes, too: ours stands before the head
    return network, last.in_features


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a ``.safetensors``, ``.pth`` or ``.pt`` file.

    Raises:
        InputError: there is no such file, or it holds something else than tensors by name.
    """
    if not path.is_file():
        raise InputError(f"data.weights: {str(path)!r} does not exist; must be a state dict (.pth or .safetensors)")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  # unpicklers raise what they like at a file that is none of theirs
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"data.weights: {path} cannot be read as a state dict ({reason})") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"data.weights: {path} holds {type(state).__name__}; must be a state dict, tensors by name")
    return dict(state)


def fill(backbone: nn.Module, state: Mapping[str, torch.Tensor], architecture: str, source: str) -> str:
    """Loads weights into a backbone; all of it must be there and fit, but the last layer. Returns what was loaded.

    Raises:
        InputError: tensors are missing, have other shapes, or belong to no part of it.
    """
    if told := _misfit(_shapes(state), backbone, architecture, source):
        raise InputError(told)
    given = {name: value for name, value in state.items() if not name.startswith(HEADS)}
    backbone.load_state_dict(given, strict=False)
    return f"{len(given)} tensors of {architecture} from {source}; {len(state) - len(given)} of its last layer left out"


def mistake_of(path: str, architecture: str, widths: str) -> str | None:
    """Why the weights of a file do not fit an architecture, in one line, or None; read once while the file is the same.

    Raises:
        InputError: as `load_state`.
    """
    changed = Path(path).stat().st_mtime_ns if Path(path).is_file() else 0
    with torch.device("meta"):  # names and shapes without the numbers
        backbone, _ = build(architecture, widths)
    return _misfit(_shapes_in(path, changed), backbone, architecture, path)


Shapes = Mapping[str, tuple[int, ...]]


@functools.lru_cache(maxsize=8)
def _shapes_in(path: str, _changed: int) -> Shapes:
    return _shapes(load_state(Path(path)))


def _shapes(state: Mapping[str, torch.Tensor]) -> Shapes:
    return {name: tuple(value.shape) for name, value in state.items()}


def _misfit(state: Shapes, backbone: nn.Module, architecture: str, source: str) -> str | None:
    mine = _shapes(backbone.state_dict())
    given = {name: shape for name, shape in state.items() if not name.startswith(HEADS)}
    missing = [name for name in mine if name not in given and not name.endswith("num_batches_tracked")]
    strange = [name for name in given if name not in mine]
    misshapen = [name for name in given if name in mine and given[name] != mine[name]]
    wrong = [
        f"{len(names)} tensors {what} (such as {names[0]}{_got(names[0], given, mine)})"
        for what, names in (("are missing", missing), ("are not of it", strange), ("have other shapes", misshapen))
        if names
    ]
    return f"data.weights: {source} does not fit {architecture}: {', '.join(wrong)}" if wrong else None


def _got(name: str, given: Shapes, mine: Shapes) -> str:
    if name not in given or name not in mine:
        return ""
    return f": got {given[name]}, must be {mine[name]}"
