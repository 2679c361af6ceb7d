"""A classifier: an encoder a modality, their fused latent, heads, and an anchor a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from trainables.classification import backbones, text_encoders
from trainables.classification.settings import Chosen

IMAGE, TEXT, TABLE = "image", "text", "table"
MODALITIES: Mapping[str, tuple[str, ...]] = {
    "image": (IMAGE,),
    "text": (TEXT,),
    "tabular": (TABLE,),
    "image_text": (IMAGE, TEXT),
}
"""What each kind of data is made of."""


@dataclass(frozen=True)
class Shape:
    """What a network is built for, beside its settings: the kind of data, its classes and, of a table, columns."""

    kind: str
    classes: int
    columns: int = 0

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the encoders."""
        return MODALITIES[self.kind]


@dataclass(frozen=True)
class Output:
    """Of n rows: class scores ``(n, classes)``, the latent ``(n, d)`` they were read from and, where there are several
    modalities, both of each alone."""

    logits: torch.Tensor
    latent: torch.Tensor
    alone: Mapping[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)


class Network(nn.Module):
    """Encoder (backbone, text encoder, table) to latent to head.

    Of several modalities the fused latent is a projection of theirs side by side, or their mean, and each modality has
    a head of its own, so that it is trained and judged alone as well. Without a latent space the head is one linear
    layer on the encoder's features.
    """

    spread: torch.Tensor
    """Of classes about their anchors, ``(classes,)``; only where there are anchors."""

    def __init__(self, shape: Shape, settings: Chosen) -> None:
        super().__init__()
        self.shape = shape
        latent, dropout = settings.latent_dim(shape.kind), settings["model.dropout"]
        encoders, sizes = _encoders(shape, settings, latent)
        self.encoders = nn.ModuleDict(encoders)
        width = latent or next(iter(sizes.values()))
        self.latents = nn.ModuleDict(
            {
                name: nn.Linear(size, width) if latent and size != width else nn.Identity()
                for name, size in sizes.items()
            }
        )
        several = len(sizes) > 1
        joined = several and settings["model.fusion"] == "concat"
        self.fusion = nn.Linear(len(sizes) * width, width) if joined else None
        hidden = settings.head_hidden(shape.kind)
        self.head = _head(width, hidden, shape.classes, dropout)
        self.heads = nn.ModuleDict({name: _head(width, hidden, shape.classes, dropout) for name in sizes if several})
        self.anchors: nn.Parameter | None = None
        if settings.has_anchors:
            self.anchors = nn.Parameter(torch.randn(shape.classes, width))
            self.register_buffer("spread", torch.zeros(shape.classes))

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> Output:
        """`inputs` by modality: images ``(n, 3, h, w)``, ids of texts ``(n, length)``, tables ``(n, columns)``."""
        latents = {name: self.latents[name](encoder(inputs[name])) for name, encoder in self.encoders.items()}
        if len(latents) == 1:
            (latent,) = latents.values()
            return Output(self.head(latent), latent)
        values = list(latents.values())
        fused = torch.stack(values).mean(dim=0) if self.fusion is None else self.fusion(torch.cat(values, dim=1))
        alone = {name: (self.heads[name](latent), latent) for name, latent in latents.items()}
        return Output(self.head(fused), fused, alone)

    def parameter_groups(self, rates: tuple[float, float]) -> list[dict[str, object]]:
        """The image backbone and all that is new, each with its rate; without a backbone one group."""
        backbone = list(self.encoders[IMAGE].parameters()) if IMAGE in self.encoders else []
        known = {id(parameter) for parameter in backbone}
        new = [parameter for parameter in self.parameters() if id(parameter) not in known]
        groups: list[dict[str, object]] = [{"params": backbone, "lr": rates[0]}] if backbone else []
        return [*groups, {"params": new, "lr": rates[1]}]


def _encoders(shape: Shape, settings: Chosen, latent: int | None) -> tuple[dict[str, nn.Module], dict[str, int]]:
    """The encoder of each modality, and the size of its features."""
    encoders: dict[str, nn.Module] = {}
    sizes: dict[str, int] = {}
    for name in shape.modalities:
        if name == IMAGE:
            encoders[name], sizes[name] = backbones.build(settings["model.architecture"], settings["model.widths"])
        elif name == TEXT:
            assert latent is not None  # of texts there is always one
            length, dropout = int(settings["model.text_length"]), settings["model.dropout"]
            encoders[name] = text_encoders.build(settings["model.text_encoder"], latent, length, dropout)
            sizes[name] = latent
        else:
            encoders[name], sizes[name] = _perceptron(shape.columns, settings)
    return encoders, sizes


def _perceptron(columns: int, settings: Chosen) -> tuple[nn.Module, int]:
    widths = [int(width) for width in str(settings["model.hidden"]).split("_")]
    layers: list[nn.Module] = []
    for before, width in zip([columns, *widths], widths, strict=False):
        layers += [nn.Linear(before, width), nn.ReLU(), nn.Dropout(settings["model.dropout"])]
    return nn.Sequential(*layers), widths[-1]


def _head(width: int, hidden: int | None, classes: int, dropout: float) -> nn.Module:
    if hidden is None:
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, classes))
    return nn.Sequential(
        nn.Dropout(dropout), nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes)
    )
