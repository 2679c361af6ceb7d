"""The evaluation of an image LoRA in one object, built once per worker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables.evaluation.clip_space import ClipSpace, consistency, identity, load_clip
from trainables.evaluation.failures import Failure, Thresholds, find_failures, mostly_failed
from trainables.evaluation.lpips_diversity import LpipsNetwork, load_lpips
from trainables.evaluation.pixels import Images
from trainables.evaluation.references import Calibration, calibrate, resolve_targets
from trainables.evaluation.score import Measures, ScoreWeights, score
from trainables.evaluation.style import Style
from tune_lora.errors import InputError


@dataclass(frozen=True)
class Evaluation:
    """What a set of images measures.

    `metrics` are finite. Only `failures` is there when every image failed: nothing else was measured. `reasons` says of
    each image which failure it is, None for a picture.
    """

    metrics: dict[str, float]
    reasons: tuple[Failure | None, ...]

    @property
    def failed(self) -> list[bool]:
        """One flag an image."""
        return [reason is not None for reason in self.reasons]

    @property
    def mostly_failed(self) -> bool:
        """Whether more than half failed: the trial's cause is then ``black_images``."""
        return mostly_failed(self.failed)


@dataclass(frozen=True)
class Evaluator:
    """Networks, targets and references of a study. `identity_features` (R, D) are those of the held-out images."""

    lpips: LpipsNetwork
    clip: ClipSpace
    calibration: Calibration = field(default_factory=Calibration)
    weights: ScoreWeights = field(default_factory=ScoreWeights)
    thresholds: Thresholds = field(default_factory=Thresholds)
    identity_features: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.weights.identity and self.identity_features is None:
            raise InputError("weight identity is set, but there are no reference images; give some, or set it to 0")

    @classmethod
    def load(
        cls,
        *,
        references: Images | None = None,
        reference_captions: Sequence[str] = (),
        identity_references: Images | None = None,
        targets: str | Mapping[str, float | str] | None = None,
        weights: Mapping[str, float] | None = None,
        clip_path: Path | None = None,
        lpips_path: Path | None = None,
        device: torch.device | str = "cpu",
    ) -> Evaluator:
        """Loads the networks and calibrates on `references` (R, H, W, 3) where the targets ask for it.

        Raises:
            InputError: files that are no weights, unknown targets or weights, references asked for and missing.
        """
        lpips, clip = load_lpips(lpips_path, device), load_clip(clip_path, device=device)
        given = references is not None and len(references) > 0
        measured = calibrate(references, reference_captions, lpips, clip) if given and references is not None else None
        known = [images for images in (references, identity_references) if images is not None and len(images)]
        return cls(
            lpips=lpips,
            clip=clip,
            calibration=resolve_targets(targets, measured, calibrated=lpips.calibrated and clip.calibrated),
            weights=ScoreWeights.of(weights or {}),
            thresholds=Thresholds.relative_to(np.concatenate(known)) if known else Thresholds(),
            identity_features=clip.images(identity_references) if identity_references is not None else None,
        )

    def evaluate(self, images: Images, prompts: Sequence[str]) -> Evaluation:
        """Measures images (N, H, W, 3), each made from its prompt. Failed ones are counted and left out of the rest."""
        if len(images) != len(prompts) or not len(images):
            raise ValueError(f"got {len(images)} images and {len(prompts)} prompts; must be as many, and at least one")
        reasons = find_failures(images, self.thresholds)
        rows = [row for row, reason in enumerate(reasons) if reason is None]
        metrics = {"failures": 1 - len(rows) / len(images)}
        if rows:
            metrics |= self._measure(images[rows], [prompts[row] for row in rows], metrics["failures"])
        return Evaluation({name: value for name, value in metrics.items() if math.isfinite(value)}, reasons)

    def _measure(self, images: Images, prompts: list[str], failures: float) -> dict[str, float]:
        style, features = Style.of(images), self.clip.images(images)
        measures = Measures(
            brightness_mean=float(style.brightness.mean()),
            brightness_std=float(style.brightness.std()),
            contrast_mean=float(style.contrast.mean()),
            contrast_std=float(style.contrast.std()),
            lpips_diversity=self.lpips.diversity(images),
            clip_consistency=consistency(features, self.clip.texts(prompts)),
            failures=failures,
            identity=None if self.identity_features is None else identity(features, self.identity_features),
        )
        result = score(measures, self.calibration.targets, self.weights)
        metrics = {name: value for name, value in asdict(measures).items() if value is not None}
        terms = {"style_term": result.style, "lpips_term": result.lpips, "clip_term": result.clip}
        return metrics | terms | {"saturation_mean": float(style.saturation.mean()), "score": result.total}

    def describe(self) -> dict[str, Any]:
        """What a reader must know to judge the numbers; JSON-able.

        `calibrated` is whether both networks are the real ones, so that numbers compare with the literature's.
        """
        calibrated = self.lpips.calibrated and self.clip.calibrated
        notes = [self.lpips.note, self.clip.note]
        if not calibrated:
            notes.append("uncalibrated: diversity, consistency and identity compare within this study only")
        bands = self.calibration.targets.bands.items()
        return {
            "calibrated": calibrated,
            "targets": asdict(self.calibration.targets),
            "targets_from": dict(self.calibration.origin),
            "bands": {name: [band.low, min(band.high, 1.0)] for name, band in bands},
            "weights": asdict(self.weights),
            "thresholds": asdict(self.thresholds),
            "notes": notes,
        }
