"""What people like of pictures, told from what is measured on them: learnt from judged pairs (docs/rating.md). Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

FEATURES = (
    "identity",
    "clip_consistency",
    "lpips_diversity",
    "brightness_mean",
    "contrast_mean",
    "saturation_mean",
    "style_term",
    "failures",
)
"""Metrics that a preference may be told from."""


@dataclass(frozen=True)
class Term:
    """How one metric counts: `weight` a standard deviation (`scale`) away from `mean`, as far as from `low` to `high`.

    Those are the least and the most that was judged: nobody has said whether more is liked, too, and a search that were
    paid for it would go there.
    """

    weight: float
    mean: float
    scale: float
    low: float
    high: float

    def of(self, value: float) -> float:
        """The metric's part, in logits."""
        return self.weight * (min(max(value, self.low), self.high) - self.mean) / self.scale


@dataclass(frozen=True)
class Preference:
    """A prediction of what is liked, from `terms` by metric."""

    terms: Mapping[str, Term]

    def of(self, metrics: Mapping[str, float]) -> float:
        """The chance in 0..1 that these pictures are preferred to the middle of those that were judged, where they are
        not called equal.

        Raises:
            ValueError: a metric of the terms was not measured.
        """
        if missing := [name for name in self.terms if name not in metrics]:
            raise ValueError(f"a preference was learnt from {missing[0]}, which was not measured")
        logit = sum(term.of(metrics[name]) for name, term in self.terms.items())
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, logit))))
