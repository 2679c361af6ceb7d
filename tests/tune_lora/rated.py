"""Finished studies of pictures that can be rated, in real files."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from trainables.lora.sheet import write_image_grid
from tune_lora import exports, spec, storage_files, store
from tune_lora.preferences import Choice, Judgement, outcomes
from tune_lora.storage import patient

PROMPTS = ["milo, frontal view, happy smile", "milo, side view, surprised"]
TIE = -0.5


def study(folder: Path, n: int = 10, *, storage: str | None = None, **changes: Any) -> Path:
    """A results folder with a study of `n` completed trials, each with a sheet of pictures of its own colour.

    Trial i has the score ``0.1 + i / 100`` (the first is the best), the identity ``0.5 + i / 100`` (the last is most
    alike) and a brightness that has nothing to do with either.
    """
    folder.mkdir(parents=True)
    given = {"name": folder.name, "dataset": {"path": "demo-character"}, "space": "lora_tiny", **changes}
    asked = spec.from_mapping({**given, "results": str(folder.parent)}, "tests")
    if storage is not None:
        asked = asked.model_copy(update={"storage": storage})
    held = store.open_study(storage or store.sqlite_url(folder), folder.name, "minimize")
    held.set_user_attr(store.SPEC, asked.as_mapping())
    held.add_trials([trial(folder, number) for number in range(n)])
    exports.write_study_file(asked.as_mapping(), folder)
    if (backend := patient(held)) is not None:
        storage_files.close(backend.engine)  # one file again, as a driver leaves it
    return folder


def trial(folder: Path, number: int) -> Any:
    """One completed trial with its pictures."""
    sheet = folder / "trials" / str(number) / "images" / "epoch_004.png"
    sheet.parent.mkdir(parents=True)
    draw = np.random.default_rng(number)
    images = np.full((2, 32, 32, 3), (number * 23 % 255, 120, 255 - number * 23 % 255), np.uint8)
    images[:, 8:24, 8:24] = draw.integers(0, 255, (2, 16, 16, 3))
    write_image_grid(sheet, images, PROMPTS, title=f"trial {number}, epoch 4")
    metrics = {
        "score": 0.1 + number / 100,
        "identity": 0.5 + number / 100,
        "clip_consistency": 0.2,
        "failures": 0.0,
        "brightness_mean": float(draw.uniform(0.4, 0.6)),
        "lpips_diversity": float(draw.uniform(0.3, 0.5)),
        "contrast_mean": float(draw.uniform(0.15, 0.25)),
    }
    attributes = {
        store.CONFIG: {"network_dim": 8, "network_alpha": 6.0, "learning_rate": 1e-4},
        store.FINAL_METRICS: metrics,
        f"{store.HISTORY_PREFIX}4": metrics,
        f"{store.IMAGES_PREFIX}4": {"epoch 4": sheet.relative_to(folder).as_posix()},
    }
    params, space = {"learning_rate": 1e-4 * (1 + number)}, {"learning_rate": FloatDistribution(1e-5, 1e-1, log=True)}
    return create_trial(
        state=TrialState.COMPLETE, value=metrics["score"], params=params, distributions=space, user_attrs=attributes
    )


def answer(draw: random.Random, left: float, right: float, tie: float = TIE) -> Choice:
    """What somebody answers to whom two trials are worth so much."""
    chances = outcomes(np.array([left - right]), tie)[0]
    choices: list[Choice] = ["left", "right", "tie"]
    return draw.choices(choices, chances)[0]


def judged(
    worth: list[float], pairs: int, seed: int = 0, rater: str = "anna", among: Sequence[int] | None = None
) -> list[Judgement]:
    """Answers to `pairs` random pairs of trials (or of those `among` them) that are worth so much."""
    draw = random.Random(seed)
    found = []
    for number in range(pairs):
        left, right = draw.sample(among or range(len(worth)), 2)
        found.append(Judgement(left, right, answer(draw, worth[left], worth[right]), rater, str(number)))
    return found
