"""What a denoiser is told besides the noisy latents: text states, and for SDXL pooled text and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Conditioning:
    """`states` (N, L, D) of the text; where the base asks for it `pooled` (N, D2) and `time_ids` (N, 6).

    A row of `time_ids` is the original height and width, the crop's top and left, the shown height and width, in
    pixels (Podell et al. 2023, section 2.2). Without them an image is taken to be shown whole.
    """

    states: torch.Tensor
    pooled: torch.Tensor | None = None
    time_ids: torch.Tensor | None = None

    def rows(self, rows: Sequence[int]) -> Conditioning:
        """The conditioning of some of the images."""
        chosen = list(rows)
        parts = (None if part is None else part[chosen] for part in (self.pooled, self.time_ids))
        return Conditioning(self.states[chosen], *parts)

    def split(self, counts: Sequence[int]) -> list[Conditioning]:
        """The conditioning of the first so many images, of the next, and so on."""
        states = self.states.split(list(counts))
        pooled, time_ids = (
            [None] * len(counts) if part is None else list(part.split(list(counts)))
            for part in (self.pooled, self.time_ids)
        )
        return [Conditioning(*parts) for parts in zip(states, pooled, time_ids, strict=True)]

    def added(self, height: int, width: int) -> dict[str, torch.Tensor] | None:
        """What a UNet of SDXL calls added conditions, for images of `height` and `width` pixels; None for others."""
        if self.pooled is None:
            return None
        time_ids = self.time_ids
        if time_ids is None:
            time_ids = torch.tensor([[height, width, 0, 0, height, width]]).repeat(len(self.pooled), 1)
        return {"text_embeds": self.pooled, "time_ids": time_ids.to(self.pooled.device)}


def stack(parts: Sequence[Conditioning]) -> Conditioning:
    """One conditioning of several, each of the same kind."""
    return Conditioning(
        torch.cat([part.states for part in parts]),
        _cat([part.pooled for part in parts]),
        _cat([part.time_ids for part in parts]),
    )


def _cat(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


def condition(
    captions: Sequence[str], tokenizers: Sequence[Any], encoders: Sequence[Any], device: torch.device
) -> Conditioning:
    """As the pipeline itself conditions: the last states of one encoder, or of two the last but one side by side and
    the second's pooled text."""
    ids = [
        tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids.to(device)
        for tokenizer in tokenizers
    ]
    if len(encoders) == 1:
        return Conditioning(encoders[0](ids[0])[0])
    outputs = [encoder(part, output_hidden_states=True) for encoder, part in zip(encoders, ids, strict=True)]
    return Conditioning(torch.cat([output.hidden_states[-2] for output in outputs], dim=-1), outputs[-1][0])
