"""What is minimised: cross-entropy, anchors in latent space, and weights of groups."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from trainables.classification import losses
from trainables.classification.groupdro import GroupWeights
from trainables.classification.network import Network, Output
from trainables.classification.settings import Chosen


class Objective:
    """``classification + lambda_fit * fit + lambda_sep * separation``.

    Classification is the cross-entropy of the fused head; with several modalities the weighted mean of theirs is added
    to it. Group-robust training weighs the groups' losses: those of the modalities, or of rows by a data column
    (`column` are its values), where the fused cross-entropy is the weighted one.
    """

    def __init__(self, settings: Chosen, modalities: tuple[str, ...], column: tuple[str, ...]) -> None:
        self._settings, self._column = settings, column
        groups = column or modalities
        self._equal = dict.fromkeys(modalities, 1.0 / len(modalities))
        self.weights = (
            GroupWeights(
                groups,
                eta=settings["groupdro.eta"],
                gamma=settings["groupdro.gamma"],
                warmup_epochs=int(settings["groupdro.warmup_epochs"]),
            )
            if settings["groupdro.enabled"]
            else None
        )

    def loss(
        self, network: Network, output: Output, labels: torch.Tensor, groups: torch.Tensor | None, epoch: int
    ) -> torch.Tensor:
        """Of one batch in an epoch (0-based); `labels` ``(n,)``, `groups` ``(n,)`` places in the column's values."""
        total = self._of_rows(output.logits, labels, groups, epoch)
        if output.alone:
            alone = {name: self._entropy(logits, labels).mean() for name, (logits, _) in output.alone.items()}
            of_modalities = self.weights is not None and not self._column
            total = total + losses.weighted(alone, self._weigh(alone, epoch) if of_modalities else self._equal)
        return total if network.anchors is None else total + self._of_anchors(network, output, labels)

    def _of_rows(
        self, logits: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor | None, epoch: int
    ) -> torch.Tensor:
        each = self._entropy(logits, labels)
        if self.weights is None or not self._column or groups is None:
            return each.mean()
        found = losses.by_group(each, groups, self._column)
        return losses.weighted(found, self._weigh(found, epoch))

    def _weigh(self, found: Mapping[str, torch.Tensor], epoch: int) -> dict[str, float]:
        assert self.weights is not None
        self.weights.update({name: float(loss.detach()) for name, loss in found.items()}, epoch)
        return self.weights.q

    def _entropy(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        smoothing = self._settings["training.label_smoothing"]
        return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing, reduction="none")

    def _of_anchors(self, network: Network, output: Output, labels: torch.Tensor) -> torch.Tensor:
        anchors, settings = network.anchors, self._settings
        assert anchors is not None
        latents = [output.latent, *(latent for _, latent in output.alone.values())]
        fits = [losses.fit(latent.float(), anchors, labels) for latent in latents]
        total: torch.Tensor = settings["anchors.lambda_fit"] * torch.stack(fits).mean()
        if settings["anchors.lambda_sep"]:
            samples = int(settings["anchors.sep_samples_per_class"])
            network.spread = losses.spread_of(output.latent, anchors, labels, network.spread)
            points = losses.points_around(anchors, network.spread, settings["anchors.eps"], samples)
            total = total + settings["anchors.lambda_sep"] * losses.separation(network.head(points), samples)
        return total
