"""Realistic finished studies in real SQLite files, for everything that reads one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from PIL import Image, ImageDraw

from trainables.protocol import Cause
from tune_lora import store

START = dt.datetime(2026, 3, 1, 21, 0, 0)  # noqa: DTZ001 - Optuna keeps local times without a zone
SPACE: dict[str, BaseDistribution] = {
    "network_alpha_ratio": FloatDistribution(0.25, 0.9, step=0.05),
    "network_dim": CategoricalDistribution([64, 128, 256]),
    "learning_rate": FloatDistribution(6e-5, 1.2e-4, log=True),
    "text_encoder_lr": FloatDistribution(3e-5, 8e-5, log=True),
    "optimizer_type": CategoricalDistribution(["AdamW", "AdamW8bit"]),
    "lr_scheduler": CategoricalDistribution(["cosine", "cosine_with_restarts", "polynomial"]),
    "gradient_accumulation_steps": CategoricalDistribution([1, 2, 4]),
    "lr_warmup_steps": CategoricalDistribution([50, 100, 150, 200]),
    "max_train_epochs": CategoricalDistribution([12, 16, 20]),
}
FIXED = {"max_grad_norm": 0.8, "min_snr_gamma": 5.0, "lr_scheduler_num_cycles": 2}
SPEC_MAPPING = {"name": "glow", "space": "lora_v2_1", "budget": {"n_trials": 24}}
FAILURES = {
    5: (Cause.NAN_LOSS, "loss became NaN at epoch 3"),
    11: (Cause.BLACK_IMAGES, "6 of 8 images failed"),
    12: (Cause.OUT_OF_MEMORY, "asked for 1.2 GiB, 0.4 GiB free"),
    17: (Cause.CRASH, "ZeroDivisionError: division by zero"),
}


@dataclass(frozen=True)
class Example:
    """A results folder with its study open."""

    folder: Path
    study: optuna.Study

    @property
    def record(self) -> store.StudyRecord:
        return store.read(self.study)


BuildStudy = Callable[..., Example]


def draw_params(rng: np.random.Generator) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for name, domain in SPACE.items():
        if isinstance(domain, CategoricalDistribution):
            params[name] = domain.choices[rng.integers(len(domain.choices))]
        elif isinstance(domain, FloatDistribution) and domain.step:
            params[name] = round(domain.low + domain.step * int(rng.integers(14)), 2)
        elif isinstance(domain, FloatDistribution):
            params[name] = float(np.exp(rng.uniform(np.log(domain.low), np.log(domain.high))))
    return params


def resolved(params: dict[str, Any]) -> dict[str, Any]:
    return {**params, "network_alpha": int(params["network_dim"] * params["network_alpha_ratio"]), **FIXED}


def final_score(config: dict[str, Any]) -> float:
    rate = (np.log10(config["learning_rate"]) - np.log10(9e-5)) * 2
    return float(
        0.12 + rate**2 + 0.3 * (config["network_alpha_ratio"] - 0.7) ** 2 + 0.02 * (config["network_dim"] == 64)
    )


def draw_picture(path: Path, number: int, label: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (64, 64), "white")
    pen = ImageDraw.Draw(picture)
    pen.ellipse((8, 8, 56, 56), fill=((number * 37) % 200, 90 + label * 15, 200 - (number * 11) % 150))
    pen.ellipse((20, 24, 26, 30), fill="white")
    pen.ellipse((38, 24, 44, 30), fill="white")
    pen.arc((22, 30, 42, 46), 10 + label * 10, 170, fill="white", width=2)
    picture.save(path)


def example_images(folder: Path, number: int, budget: int) -> dict[str, str]:
    images = {}
    for label, text in enumerate(
        ("frontal, happy smile", "three-quarter, concerned", "side, surprised", "frontal, sleepy")
    ):
        relative = f"trials/{number}/images/{budget}-{label}.png"
        draw_picture(folder / relative, number, label)
        images[text] = relative
    return images


def example_trial(folder: Path, number: int, rng: np.random.Generator) -> FrozenTrial:
    """A trial as the searcher stores it: rungs at 4, 8 and 16 epochs, the worse half pruned at the first two."""
    params, distributions, provenance = draw_params(rng), dict(SPACE), "sampler"
    config = resolved(params)
    if number == 0:  # a reference configuration, partly outside the space
        params = {"network_dim": 128, "network_alpha_ratio": 0.75, "optimizer_type": "AdamW"}
        config = {**config, **params, "learning_rate": 1.3e-4, "max_train_epochs": 18, "network_alpha": 96}
        distributions, provenance = {name: SPACE[name] for name in params}, "prior:trial_3_5"
    horizon, score = config["max_train_epochs"], final_score(config)
    state, cause, message = _ending(number, score)
    last = {"failed": 3, "pruned": 4 if score > 0.19 else 8, "complete": horizon, "running": 6}[state]
    curve = {b: score + 0.35 * float(np.exp(-b / 5)) + float(rng.normal(0, 0.004)) for b in (4, 8, 16) if b <= last}
    attributes: dict[str, Any] = {
        store.CONFIG: config,
        store.PROVENANCE: provenance,
        store.SEED: 42 + number,
        store.SECONDS: 14.5 * last,
    }
    for budget in range(1, last + 1):
        metrics = {
            "validation_loss": 0.1 + 0.3 * float(np.exp(-budget / 4)) + score / 10,
            "train_loss": 0.1 + 0.5 / budget,
        }
        if budget in curve or budget == horizon:
            metrics |= {
                "score": curve.get(budget, score),
                "clip_consistency": 0.4 - score / 2,
                "failures": 0.0,
                "identity": 0.9 - score,
            }
            attributes[f"{store.IMAGES_PREFIX}{budget}"] = example_images(folder, number, budget)
        attributes[f"{store.HISTORY_PREFIX}{budget}"] = metrics
        attributes[store.FINAL_METRICS] = metrics
    if state == "complete":
        curve[horizon] = score
    if cause:
        attributes |= {store.CAUSE: cause.value, store.MESSAGE: message}
    states = {
        "complete": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
        "failed": TrialState.FAIL,
        "running": TrialState.RUNNING,
    }
    trial = create_trial(
        state=states[state],
        value=score if state == "complete" else None,
        params=params,
        distributions=distributions,
        user_attrs=attributes,
        intermediate_values={} if state == "failed" else curve,
    )
    trial.datetime_start = START + dt.timedelta(minutes=4 * number)
    if state != "running":
        trial.datetime_complete = trial.datetime_start + dt.timedelta(seconds=15 * last)
    return trial


def _ending(number: int, score: float) -> tuple[str, Cause | None, str]:
    if number in FAILURES:
        return "failed", *FAILURES[number]
    if number == 23:
        return "running", None, ""
    if number and score > 0.155:
        return "pruned", Cause.PRUNED, "below the better half at its rung"
    return "complete", None, ""


@pytest.fixture(scope="session")
def build_study() -> BuildStudy:
    """Builds a study in `folder` with `n_trials` of the example's trials."""

    def build(folder: Path, n_trials: int = 24, name: str = "glow") -> Example:
        folder.mkdir(parents=True, exist_ok=True)
        study = store.open_study(store.sqlite_url(folder), name, "minimize")
        rng = np.random.default_rng(7)
        study.add_trials([example_trial(folder, number, rng) for number in range(n_trials)])
        study.set_user_attr(store.SPEC, SPEC_MAPPING)
        study.set_user_attr(store.REJECTIONS, {"high_dim_few_epochs": 9, "high_alpha_safety": 4})
        study.set_user_attr(store.STOP_REASON, "24 trials were asked for")
        study.set_user_attr(store.BASELINE, {"score": 0.31, "clip_consistency": 0.21, "failures": 0.0})
        study.set_user_attr(store.BASE_IMAGES, example_images(folder, -1, 0))
        study.set_user_attr(store.CALIBRATION, {"calibrated": False, "notes": ["the miniature CLIP measures likeness"]})
        return Example(folder, study)

    return build


@pytest.fixture(scope="session")
def example(build_study: BuildStudy, tmp_path_factory: pytest.TempPathFactory) -> Example:
    """The finished study of 24 trials. Shared: tests read it and write elsewhere."""
    return build_study(tmp_path_factory.mktemp("results") / "glow")
