"""The success table of a study of image LoRAs: each criterion with its number, its goal and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from search_spaces.domains import Number
from trainables.protocol import Cause
from tune_lora import wording
from tune_lora.analysis._domains import domains_of, is_rate
from tune_lora.records import StudyRecord, TrialRecord

USABLE_FAILURES = 0.10
"""Share of failed images below which a trial is usable."""
EXCELLENT_SCORE = 0.10
BEST_SHARE = 0.10
_FAILURES = "failures"
_RATES = (("6e-5 to 8e-5", 6e-5, 8e-5, 7), ("8e-5 to 1e-4", 8e-5, 1e-4, 8), ("above 1e-4", 1e-4, 1.2e-4, 5))
_RATIOS = (("up to 0.40", 0.0, 0.425, 6), ("0.45 to 0.70", 0.425, 0.725, 8), ("0.75 and more", 0.725, 99.0, 6))
_OF = 20


@dataclass(frozen=True)
class Criterion:
    """One line of the table. `measured` is in words, `number` the plain number (None: not measured). `holds` is None
    where it cannot be told; `note` says why, or of what the number is a share."""

    name: str
    measured: str
    number: float | None
    goal: str
    holds: bool | None
    note: str = ""


@dataclass(frozen=True)
class Bin:
    """How many trials that the sampler drew fell into a part of a range; `expected` of so many, None where nothing is
    expected of this space."""

    label: str
    count: int
    expected: float | None


@dataclass(frozen=True)
class Distribution:
    """How the trials spread over a range."""

    name: str
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class SuccessTable:
    """What a study of image LoRAs is held against."""

    criteria: tuple[Criterion, ...]
    distributions: tuple[Distribution, ...]

    @property
    def held(self) -> int:
        """How many criteria hold."""
        return sum(one.holds is True for one in self.criteria)

    @property
    def summary(self) -> str:
        """``5 of 6 criteria hold``; those that cannot be told do not count."""
        return f"{self.held} of {sum(one.holds is not None for one in self.criteria)} criteria hold"

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def success_table(record: StudyRecord) -> SuccessTable | None:
    """The table, or None where the study trained no image LoRAs or no trial has ended.

    *Stable*: ended without a failure that the configuration caused. *Usable*: completed, less than a tenth of the
    images failed, every metric inside its band. *Excellent*: usable, and a score under 0.10, or among the best tenth
    where the targets were calibrated on the user's images.
    """
    ended = [one for one in record.trials if one.counts]
    if not (wording.draws(record) and ended):
        return None
    stable = [one for one in ended if not _is_at_fault(one)]
    criteria = (
        _under("catastrophic failures", 1 - len(stable) / len(ended), 0.10, f"of {len(ended)} trials that ended"),
        *_usable(record, ended),
        Criterion(
            "stable",
            f"{len(stable) / len(ended):.0%}",
            len(stable) / len(ended),
            "80-90% or more",
            len(stable) / len(ended) >= 0.8,
            f"of {len(ended)} trials that ended",
        ),
        _clip(record),
        _explosions(ended),
        _identity(record),
    )
    return SuccessTable(criteria, tuple(_distributions(record)))


def is_usable(record: StudyRecord, trial: TrialRecord) -> bool | None:
    """Whether a trial is usable; None where its images were not judged or the study names no bands."""
    if trial.state != "complete":
        return False
    bands: Mapping[str, Sequence[float]] = record.calibration.get("bands", {})
    failures = trial.metrics.get(_FAILURES)
    if failures is None:
        return None
    if failures >= USABLE_FAILURES:
        return False
    if not bands or not bands.keys() <= trial.metrics.keys():
        return None
    return all(low <= trial.metrics[name] <= high for name, (low, high) in bands.items())


def _is_at_fault(trial: TrialRecord) -> bool:
    return trial.state == "failed" and trial.cause is not None and trial.cause.is_fault_of_configuration


def _under(name: str, share: float, most: float, note: str) -> Criterion:
    return Criterion(name, f"{share:.0%}", share, f"< {most:.0%}", share < most, note)


def _usable(record: StudyRecord, ended: Sequence[TrialRecord]) -> tuple[Criterion, Criterion]:
    judged = [one for one in ended if one.state != "pruned"]
    verdicts = {one.number: is_usable(record, one) for one in judged}
    if not judged or any(verdict is None for verdict in verdicts.values()):
        why = "every trial was pruned" if not judged else "not every trial has bands and measures to be held against"
        usable = Criterion("usable", "–", None, "> 60%", None, why)
        return usable, Criterion("excellent", "–", None, "> 3 trials", None, why)
    share = sum(bool(verdict) for verdict in verdicts.values()) / len(judged)
    usable = Criterion("usable", f"{share:.0%}", share, "> 60%", share > 0.6, f"of {len(judged)} trials not pruned")
    own = "reference" in set((record.calibration.get("targets_from") or {}).values())
    ranked = record.ranked()
    best = ranked[: max(1, round(BEST_SHARE * len(ranked)))] if own else [one for one in ranked if _is_low(one)]
    count = sum(bool(verdicts.get(one.number)) for one in best)
    note = "usable and among the best 10%: targets are the images' own" if own else "usable and a score under 0.10"
    return usable, Criterion("excellent", str(count), float(count), "> 3 trials", count > 3, note)


def _is_low(trial: TrialRecord) -> bool:
    return trial.value is not None and trial.value < EXCELLENT_SCORE


def _clip(record: StudyRecord) -> Criterion:
    value = record.best.metrics.get("clip_consistency") if record.best else None
    if value is None:
        return Criterion("CLIP on the best", "–", None, "> 0.30", None, "not measured")
    if record.is_uncalibrated:
        note = "uncalibrated: not on the scale of 0.30"
        return Criterion("CLIP on the best", wording.number(value), value, "> 0.30", None, note)
    return Criterion("CLIP on the best", wording.number(value), value, "> 0.30", value > 0.30)


def _explosions(ended: Sequence[TrialRecord]) -> Criterion:
    count = sum(one.cause is Cause.GRADIENT_EXPLOSION for one in ended)
    return Criterion("gradient explosions", str(count), float(count), "none", count == 0)


def _identity(record: StudyRecord) -> Criterion:
    """The outputs are of one character where they are no more diverse than the band allows; likeness stands beside."""
    name, best = "consistent identity across outputs", record.best
    diversity = best.metrics.get("lpips_diversity") if best else None
    band = record.calibration.get("bands", {}).get("lpips_diversity")
    if best is None or diversity is None or band is None:
        return Criterion(name, "–", None, "diversity inside its band", None, "not measured")
    goal = f"diversity at most {wording.number(band[1])}"
    likeness = best.metrics.get("identity")
    note = "" if likeness is None else f"likeness to held-out images {wording.number(likeness)}"
    return Criterion(name, f"diversity {wording.number(diversity)}", diversity, goal, diversity <= band[1], note)


def _distributions(record: StudyRecord) -> list[Distribution]:
    drawn = [one for one in record.trials if one.provenance == "sampler"]
    found = []
    ratios = [ratio for one in drawn if (ratio := _ratio(one.config)) is not None]
    if ratios:
        found.append(Distribution("alpha ratio", _counted(ratios, _RATIOS)))
    domains = domains_of(record)[0]
    name = next((name for name in domains if is_rate(name)), "")
    rates, domain = [float(one.params[name]) for one in drawn if name in one.params], domains.get(name)
    if rates and isinstance(domain, Number):
        found.append(Distribution("learning rate", _rate_bins(rates, domain)))
    return found


def _ratio(config: Mapping[str, Any]) -> float | None:
    if "network_alpha_ratio" in config:
        return float(config["network_alpha_ratio"])
    alpha, dim = config.get("network_alpha"), config.get("network_dim")
    return float(alpha) / float(dim) if alpha is not None and dim else None


def _counted(values: Sequence[float], bins: Sequence[tuple[str, float, float, float | None]]) -> tuple[Bin, ...]:
    """Each value in one bin; what lies below the first or above the last is in that one."""
    ends = [high for _, _, high, _ in bins[:-1]]
    places = [sum(value > end for end in ends) for value in values]
    return tuple(
        Bin(label, places.count(index), None if expected is None else round(expected * len(values) / _OF, 1))
        for index, (label, _, _, expected) in enumerate(bins)
    )


def _rate_bins(rates: Sequence[float], domain: Number) -> tuple[Bin, ...]:
    """The bins of `lora_v2_1` where the study has its range, else three equal parts of the study's own."""
    if (domain.low, domain.high) == (6e-5, 1.2e-4):
        return _counted(rates, _RATES)
    ends = [float(domain.at(share)) for share in (0.0, 1 / 3, 2 / 3, 1.0)]
    names = [f"{wording.number(low, 2)} to {wording.number(high, 2)}" for low, high in pairwise(ends)]
    return _counted(rates, [(name, low, high, None) for name, (low, high) in zip(names, pairwise(ends), strict=True)])
