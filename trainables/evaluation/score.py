"""The score of an image LoRA, lower is better (docs/scoring.md). Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from trainables.evaluation.targets import Targets
from tune_lora.errors import InputError, nearest


@dataclass(frozen=True)
class ScoreWeights:
    """How much each term counts. The first three are not renormalised when others are set."""

    style: float = 0.40
    lpips: float = 0.30
    clip: float = 0.30
    identity: float = 0.0
    failures: float = 0.0
    preference: float = 0.0

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> ScoreWeights:
        """The defaults with some weights replaced by name.

        Raises:
            InputError: an unknown name, or a weight that is negative or not finite.
        """
        names = [field.name for field in fields(cls)]
        for name, weight in weights.items():
            if name not in names:
                raise InputError(f"unknown weight {name!r}; {nearest(name, names)}")
            if not (math.isfinite(weight) and weight >= 0):
                raise InputError(f"weight {name} is {weight}; must be a number of 0 or more")
        return cls(**weights)


@dataclass(frozen=True)
class Measures:
    """What was measured on a set of images: means and population deviations over the valid ones.

    `failures` is the share of failed images in 0..1. `identity` is None where there are no references, `preference`
    (the chance in 0..1 that people like them better than the middle of others) where none was learnt.
    """

    brightness_mean: float
    brightness_std: float
    contrast_mean: float
    contrast_std: float
    lpips_diversity: float
    clip_consistency: float
    failures: float = 0.0
    identity: float | None = None
    preference: float | None = None


@dataclass(frozen=True)
class Score:
    """The score and the three terms behind it, each before its weight."""

    style: float
    lpips: float
    clip: float
    total: float


def score(measures: Measures, targets: Targets, weights: ScoreWeights) -> Score:
    """The score of docs/scoring.md.

    Raises:
        ValueError: identity or preference has a weight and was not measured.
    """
    style = (
        abs(measures.brightness_mean - targets.brightness)
        + 0.5 * measures.brightness_std
        + abs(measures.contrast_mean - targets.contrast)
        + 0.5 * measures.contrast_std
    )
    lpips = abs(measures.lpips_diversity - targets.diversity)
    clip = max(0.0, targets.clip - measures.clip_consistency)
    total = weights.style * style + weights.lpips * lpips + weights.clip * clip + weights.failures * measures.failures
    for name in ("identity", "preference"):
        weight, measured = getattr(weights, name), getattr(measures, name)
        if not weight:
            continue
        if measured is None:
            raise ValueError(f"{name} has a weight and was not measured")
        total += weight * (1 - measured)
    return Score(style, lpips, clip, total)
