"""The evaluation of an image LoRA in one object, built once per worker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
from trainables.preference import Preference
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
class _Seen:
    """What networks say of a set of images: places of images and prompts in CLIP's space (N, D), diversity."""

    features: np.ndarray
    texts: np.ndarray
    diversity: float


@dataclass(frozen=True)
class Evaluator:
    """Networks, targets and references of a study. `identity_features` (R, D) are those of the held-out images,
    `preference` is what people were found to like."""

    lpips: LpipsNetwork
    clip: ClipSpace
    calibration: Calibration = field(default_factory=Calibration)
    weights: ScoreWeights = field(default_factory=ScoreWeights)
    thresholds: Thresholds = field(default_factory=Thresholds)
    identity_features: np.ndarray | None = field(default=None, repr=False)
    preference: Preference | None = None

    def __post_init__(self) -> None:
        if self.weights.preference and self.preference is None:
            raise InputError("weight preference is set, but none was learnt; give objective.preference, or set it to 0")
        if self.weights.identity and self.identity_features is None:
            raise InputError("weight identity is set, but there are no reference images; give some, or set it to 0")
        if self.preference is not None and "identity" in self.preference.terms and self.identity_features is None:
            raise InputError(
                "objective.preference was learnt from identity, but there are no reference images; give some, or learn "
                "it from a study without"
            )

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
        preference: Preference | None = None,
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
            preference=preference,
        )

    def evaluate(self, images: Images, prompts: Sequence[str]) -> Evaluation:
        """Measures images (N, H, W, 3), each made from its prompt. Failed ones are counted and left out of the rest."""
        return self.evaluate_each([images], prompts)[0]

    def evaluate_each(self, sets: Sequence[Images], prompts: Sequence[str]) -> list[Evaluation]:
        """Measures several sets of images of one size, each made from the same prompts: each network looks at all of
        them in one go, and each set has what it would have by itself."""
        for images in sets:
            if len(images) != len(prompts) or not len(images):
                raise ValueError(
                    f"got {len(images)} images and {len(prompts)} prompts; must be as many, and at least one"
                )
        reasons = [find_failures(images, self.thresholds) for images in sets]
        pictures = [[row for row, reason in enumerate(found) if reason is None] for found in reasons]
        sound = [images[rows] for images, rows in zip(sets, pictures, strict=True) if rows]
        seen = iter(self._seen(sound, [prompts[row] for rows in pictures for row in rows]))
        found = []
        for images, rows, why in zip(sets, pictures, reasons, strict=True):
            metrics = {"failures": 1 - len(rows) / len(images)}
            if rows:
                metrics |= self._measure(images[rows], next(seen), metrics["failures"])
            found.append(Evaluation({name: value for name, value in metrics.items() if math.isfinite(value)}, why))
        return found

    def _seen(self, sets: Sequence[Images], prompts: Sequence[str]) -> list[_Seen]:
        """What the networks say of each set; `prompts` are those of all images, one set behind the other."""
        if not sets:
            return []
        ends = np.cumsum([len(images) for images in sets])[:-1]
        features = np.split(self.clip.images(np.concatenate(sets)), ends)
        texts = np.split(self.clip.texts(prompts), ends)
        return [_Seen(*one) for one in zip(features, texts, self.lpips.diversities(sets), strict=True)]

    def _measure(self, images: Images, seen: _Seen, failures: float) -> dict[str, float]:
        style, features = Style.of(images), seen.features
        measures = Measures(
            brightness_mean=float(style.brightness.mean()),
            brightness_std=float(style.brightness.std()),
            contrast_mean=float(style.contrast.mean()),
            contrast_std=float(style.contrast.std()),
            lpips_diversity=seen.diversity,
            clip_consistency=consistency(features, seen.texts),
            failures=failures,
            identity=None if self.identity_features is None else identity(features, self.identity_features),
        )
        without = score(measures, self.calibration.targets, replace(self.weights, preference=0.0))
        metrics = {name: value for name, value in asdict(measures).items() if value is not None}
        metrics |= {"style_term": without.style, "lpips_term": without.lpips, "clip_term": without.clip}
        metrics["saturation_mean"] = float(style.saturation.mean())
        if self.preference is None:
            return metrics | {"score": without.total}
        liked = self.preference.of(metrics)
        total = score(replace(measures, preference=liked), self.calibration.targets, self.weights).total
        return metrics | {"preference": liked, "score": total}

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
