"""A trained two-stage model as files, ``model.safetensors`` and ``model.json``, and its use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from trainables.lora.files import write_whole
from trainables.tables import Table
from trainables.transfer.data import TransferData
from trainables.transfer.scaling import Scales, standardised
from trainables.transfer.stack import Mlp, Stack
from trainables.transfer.stage1 import ENCODER, Encoders, encoded, predicted
from trainables.transfer.stage2 import EXP, SOL, Transfer
from tune_lora.errors import InputError, nearest

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of n rows: the measured value ``(n,)``, the computed label ``(n,)``, and the probability of label 1 ``(n,)`` or
    None."""

    values: np.ndarray
    computed: np.ndarray
    probabilities: np.ndarray | None


def export(
    folder: Path, transfer: Transfer, encoders: Encoders, data: TransferData, metrics: Mapping[str, float]
) -> None:
    """Writes the first lane of a trained model, each file whole or not at all. Where stage 2 trained the encoder, both
    encoders are in it."""
    stacks = {"stage1": encoders.stack, "stage2": transfer.stack}
    scales = {
        "inputs": transfer.inputs,
        "computed": encoders.target,
        "latents": transfer.latents,
        "value": transfer.target,
    }
    described = {
        "format": FORMAT,
        "feature_names": list(data.feature_names),
        "classes": ["0", "1"] if data.labels is not None else [],
        "networks": {name: [_described(net) for net in stack.nets.values()] for name, stack in stacks.items()},
        "scales": {name: _numbers(one) for name, one in scales.items()},
        "held_out_metrics": dict(metrics),
    }
    tensors = {
        f"{stage}.{name}": values[0].contiguous().clone()
        for stage, stack in stacks.items()
        for name, values in {**stack.views(stack.weights), **stack.stat_views()}.items()
    }
    write_whole(folder / WEIGHTS, lambda path: save_file(tensors, path))
    text = json.dumps(described, indent=1, allow_nan=False)
    write_whole(folder / DESCRIPTION, lambda path: path.write_text(text, encoding="utf-8"))


def predict(folder: Path, table: Table) -> Predictions:
    """What an exported model says of a table's rows; columns are found by name, others are ignored.

    Raises:
        InputError: there is no model in the folder, or the table lacks a feature.
    """
    try:
        told = json.loads((folder / DESCRIPTION).read_text("utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError):
        raise InputError(
            f"{folder}: holds no two-stage model; must be a folder with {WEIGHTS} and {DESCRIPTION}"
        ) from None
    lacking = [name for name in told["feature_names"] if name not in table.names]
    if lacking:
        raise InputError(
            f"the table lacks {len(lacking)} of {len(told['feature_names'])} features, first {lacking[0]!r}; "
            f"{nearest(lacking[0], table.names)}"
        )
    x = table.features[:, [table.names.index(name) for name in told["feature_names"]]]
    return _predicted(torch.from_numpy(np.ascontiguousarray(x)), told, tensors)


@torch.no_grad()
def _predicted(x: torch.Tensor, told: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Predictions:
    first, second = (_stack(stage, told["networks"][stage], tensors) for stage in ("stage1", "stage2"))
    scales = {name: _scales(numbers) for name, numbers in told["scales"].items()}
    everything = [np.arange(len(x))]
    (computed,) = predicted(first, scales["inputs"], scales["computed"], x, everything)
    owner = second if ENCODER in second.nets else first
    seen = encoded(owner, owner.views(owner.weights), scales["inputs"], x, everything)
    if scales["latents"].mean.shape[1] > seen.shape[2]:  # the heads see the computed label, too
        seen = torch.cat([seen, torch.from_numpy(computed).to(seen.dtype)[None, :, None]], dim=2)
    seen, views = standardised(seen, scales["latents"]), second.views(second.weights)
    values = second.run(EXP, views, seen).squeeze(2) * scales["value"].scale + scales["value"].mean
    probabilities = None
    if SOL in second.nets:
        probabilities = torch.sigmoid(second.run(SOL, views, seen))[0, :, 0].double().numpy()
    return Predictions(values[0].double().numpy(), computed, probabilities)


def _described(net: Mlp) -> dict[str, Any]:
    return {"name": net.name, "widths": list(net.widths), "norm": net.norm}


def _stack(stage: str, nets: list[dict[str, Any]], tensors: Mapping[str, torch.Tensor]) -> Stack:
    mlps = [Mlp(net["name"], tuple(net["widths"]), norm=net["norm"]) for net in nets]
    stack = Stack.fresh(mlps, [(0,)], torch.float32)
    for name, values in {**stack.views(stack.weights), **stack.stat_views()}.items():
        values[0] = tensors[f"{stage}.{name}"]
    return stack


def _numbers(scales: Scales) -> dict[str, list[float]]:
    """A constant column has scale 0, as in `trainables.tables.Scaler`."""
    scale = torch.where(torch.isinf(scales.scale[0]), 0.0, scales.scale[0])
    return {"mean": scales.mean[0].tolist(), "scale": scale.tolist()}


def _scales(numbers: Mapping[str, list[float]]) -> Scales:
    mean, scale = torch.tensor([numbers["mean"]]), torch.tensor([numbers["scale"]])
    return Scales(mean, torch.where(scale > 0, scale, torch.inf))
