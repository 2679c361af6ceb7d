"""What a good set of images measures: the user's numbers, or those of the user's own images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from tune_lora.errors import InputError, nearest


@dataclass(frozen=True)
class Band:
    """Values from `low` to `high`, both inside."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def scaled(self, factor: float) -> Band:
        """The band of the same proportions around a target that is `factor` times as large."""
        return Band(self.low * factor, self.high * factor)


_ANY = float("inf")


@dataclass(frozen=True)
class Targets:
    """The score's targets; the defaults are the user's own numbers (docs/scoring.md).

    Brightness and contrast are pixel values in 0..1, diversity is LPIPS, clip a cosine. Saturation has a band only.
    """

    brightness: float = 0.50
    contrast: float = 0.20
    diversity: float = 0.40
    clip: float = 0.35
    saturation: float = 0.40

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not -1 <= value <= 1:
                raise InputError(f"target {field.name} is {value}; must be between -1 and 1")

    @property
    def bands(self) -> Mapping[str, Band]:
        """The band of each metric: inside it an image LoRA is usable. In the proportions of the user's own bands.

        For a cosine target that is not the user's 0.35, the lower end is the user's success criterion of 0.30 in 0.35:
        real images themselves stay under their own mean half of the time.
        """
        unchanged = self.clip == Targets.clip
        return {
            "brightness_mean": Band(0.40, 0.60).scaled(self.brightness / 0.50),
            "contrast_mean": Band(0.15, 0.25).scaled(self.contrast / 0.20),
            "saturation_mean": Band(0.30, 0.50).scaled(self.saturation / 0.40),
            "lpips_diversity": Band(0.30, 0.50).scaled(self.diversity / 0.40),
            "clip_consistency": Band(self.clip if unchanged else min(self.clip, self.clip * 0.30 / 0.35), _ANY),
        }

    @classmethod
    def checked(cls, name: str) -> str:
        """The name of a target.

        Raises:
            InputError: there is no such target.
        """
        names = [field.name for field in fields(cls)]
        if name not in names:
            raise InputError(f"unknown target {name!r}; {nearest(name, names)}")
        return name
