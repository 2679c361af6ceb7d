"""Loss terms of a classifier, each a plain function of tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F


def fit(latents: torch.Tensor, anchors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of latents ``(n, d)`` to the anchor of their class, ``(1/n) sum |z_i - a_yi|^2 / d``;
    `anchors` is ``(classes, d)``."""
    return (latents - anchors[labels]).square().mean()


def spread_of(
    latents: torch.Tensor, anchors: torch.Tensor, labels: torch.Tensor, before: torch.Tensor, keep: float = 0.9
) -> torch.Tensor:
    """The variance of each class about its anchor, ``(classes,)``, smoothed over steps: ``keep * before + (1 - keep) *
    mean |z - a|^2 / d`` over the batch's rows of the class; a class without rows keeps its own."""
    with torch.no_grad():
        distance = (latents.float() - anchors[labels]).square().mean(dim=1)
        sums = torch.zeros_like(before).index_add_(0, labels, distance)
        counts = torch.zeros_like(before).index_add_(0, labels, torch.ones_like(distance))
        return torch.where(counts > 0, keep * before + (1 - keep) * sums / counts.clamp(min=1), before)


def points_around(anchors: torch.Tensor, spread: torch.Tensor, eps: float, samples: int) -> torch.Tensor:
    """`samples` points around each anchor, ``(classes * samples, d)``, class after class: ``a_c + sqrt(spread_c + eps)
    * noise`` with standard normal noise."""
    repeated = anchors.repeat_interleave(samples, dim=0)
    scale = (spread + eps).sqrt().repeat_interleave(samples)
    return repeated + scale[:, None] * torch.randn_like(repeated)


def separation(logits: torch.Tensor, samples: int) -> torch.Tensor:
    """Cross-entropy of what the head says of `points_around`: classes are apart where it tells them apart."""
    classes = len(logits) // samples
    return F.cross_entropy(logits.float(), torch.arange(classes, device=logits.device).repeat_interleave(samples))


def weighted(losses: Mapping[str, torch.Tensor], weights: Mapping[str, float]) -> torch.Tensor:
    """``sum q_g * loss_g / sum q_g`` over the groups that have rows in the batch, so that a batch without some group is
    no smaller step."""
    total = sum(weights[name] for name in losses)
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum() / total


def by_group(losses: torch.Tensor, groups: torch.Tensor, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Mean of the rows' losses ``(n,)`` in each group that has rows; `groups` ``(n,)`` are places in `names`."""
    return {names[one]: losses[groups == one].mean() for one in torch.unique(groups).tolist()}
