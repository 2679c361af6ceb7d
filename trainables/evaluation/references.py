"""Targets out of the user's own images: ``target: reference`` of docs/scoring.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from trainables.evaluation.clip_space import ClipSpace, consistency
from trainables.evaluation.lpips_diversity import LpipsNetwork
from trainables.evaluation.pixels import Images
from trainables.evaluation.style import Style
from trainables.evaluation.targets import Targets
from tune_lora.errors import InputError

REFERENCE, SPEC = "reference", "spec"
MOST_FOR_DIVERSITY = 32
"""Images whose pairs estimate the diversity of a training set; 496 pairs, evenly spread over the set."""


@dataclass(frozen=True)
class Calibration:
    """Targets, and where each comes from: ``reference``, ``spec`` or ``given``."""

    targets: Targets = field(default_factory=Targets)
    origin: Mapping[str, str] = field(default_factory=dict)


def calibrate(references: Images, captions: Sequence[str], lpips: LpipsNetwork, clip: ClipSpace) -> Targets:
    """What the reference images (R, H, W, 3) with their captions measure themselves."""
    style = Style.of(references)
    rows = np.linspace(0, len(references) - 1, min(len(references), MOST_FOR_DIVERSITY)).round().astype(int)
    return Targets(
        brightness=float(style.brightness.mean()),
        contrast=float(style.contrast.mean()),
        diversity=lpips.diversity(references[rows]),
        clip=consistency(clip.images(references), clip.texts(captions)),
        saturation=float(style.saturation.mean()),
    )


def resolve_targets(
    wanted: str | Mapping[str, float | str] | None, measured: Targets | None, *, calibrated: bool
) -> Calibration:
    """The targets that a study asks for.

    `wanted` is ``reference``, ``spec``, or a number or one of these words by name. What is not named, and all where it
    is None, is ``spec`` for `calibrated` networks and ``reference`` for others, whose numbers are on no known scale.
    `measured` are the references' own values, None without references.

    Raises:
        InputError: an unknown name or word, or ``reference`` without references.
    """
    names = tuple(asdict(Targets()))
    usual = SPEC if calibrated or measured is None else REFERENCE
    choices: dict[str, float | str] = dict.fromkeys(names, wanted if isinstance(wanted, str) else usual)
    if isinstance(wanted, Mapping):
        choices |= {Targets.checked(name): value for name, value in wanted.items()}
    values, origin = {}, {}
    for name, choice in choices.items():
        values[name], origin[name] = _resolve(name, choice, measured)
    return Calibration(Targets(**values), origin)


def _resolve(name: str, choice: float | str, measured: Targets | None) -> tuple[float, str]:
    if not isinstance(choice, str):
        return float(choice), "given"
    if choice == SPEC:
        return float(getattr(Targets(), name)), SPEC
    if choice != REFERENCE:
        raise InputError(f"target {name} is {choice!r}; must be a number, {REFERENCE!r} or {SPEC!r}")
    if measured is None:
        raise InputError(f"target {name} is {REFERENCE!r}, but there are no references; give a number or {SPEC!r}")
    return float(getattr(measured, name)), REFERENCE
