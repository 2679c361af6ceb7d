"""What the metrics say of pictures that nobody would want: noise, one picture eight times, an average, wrong captions,
other characters; and of labels, groups and importance where there is nothing to find. Fluent Emoji's smiley at 64 px.

No network is trained. Diversity, consistency and identity are those of the networks that the machine has (`note`).
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import common
from trainables.evaluation import Evaluator
from trainables.lora import dataset
from trainables.transfer.judging import of_labels

N = 8
DRAWS = 5 if common.QUICK else 40
SIZE = 64
OTHERS = 96
Metrics = Mapping[str, float]


def _loaded() -> tuple[Evaluator, Evaluator, np.ndarray, list[str]]:
    """Evaluators with the targets of the pictures and with the published ones; training pictures and captions."""
    data = dataset.load(common.data_folder() / "fluent3d" / "character", settings={"resolution": SIZE})
    train, held = ([*data.train], [*data.held_out])
    images, unseen = (np.stack([dataset.pixels(one.path, SIZE) for one in part]) for part in (train, held))
    captions = [one.caption for one in train]
    both = [
        Evaluator.load(references=images, reference_captions=captions, identity_references=unseen, targets=targets)
        for targets in ("reference", "spec")
    ]
    return both[0], both[1], images, captions


def _sets(images: np.ndarray, draw: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Eight pictures of each kind, made of eight that are real."""
    floats = images.astype(np.float32) / 255
    yield "real", floats
    yield "copies", np.repeat(floats[:1], N, axis=0)
    yield "noise", draw.random(floats.shape, dtype=np.float32)
    yield "noisy", (0.5 * floats + 0.5 * draw.random(floats.shape, dtype=np.float32)).clip(0, 1)
    yield "average", np.repeat(floats.mean(axis=0, keepdims=True), N, axis=0)
    grey = floats.mean(axis=3, keepdims=True).repeat(3, axis=3)
    yield "grey", grey
    yield "upside_down", floats[:, ::-1].copy()
    yield "scrambled", _scrambled(floats, draw)


def _scrambled(images: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The pixels of each picture in another order: the same colours, and nothing to see."""
    flat = images.reshape(len(images), -1, 3)
    return np.stack([one[draw.permutation(len(one))] for one in flat]).reshape(images.shape)


def _others(draw: np.random.Generator) -> np.ndarray:
    folder = common.data_folder() / "fluent3d" / "base"
    paths = sorted(folder.glob("*.webp"))
    return np.stack([dataset.pixels(paths[row], SIZE) for row in draw.choice(len(paths), OTHERS, replace=False)])


def _measured(evaluator: Evaluator, images: np.ndarray, captions: Sequence[str]) -> Metrics:
    return evaluator.evaluate(images, captions).metrics


def _of_pictures() -> tuple[dict[str, dict[str, list[float]]], str]:
    """Values of each metric, by kind of pictures; and which networks measured them."""
    own, published, images, captions = _loaded()
    draw, found = np.random.default_rng(0), dict[str, dict[str, list[float]]]()
    others = _others(draw)

    def keep(kind: str, chosen: np.ndarray, told: Sequence[str]) -> None:
        metrics = dict(_measured(own, chosen, told))
        metrics["published_score"] = _measured(published, chosen, told).get("score", math.nan)
        for name, value in metrics.items():
            found.setdefault(kind, {}).setdefault(name, []).append(value)

    for _ in range(DRAWS):
        rows = draw.choice(len(images), N, replace=False)
        told = [captions[row] for row in rows]
        for kind, made in _sets(images[rows], draw):
            keep(kind, made, told)
        keep("others", others[draw.choice(OTHERS, N, replace=False)], told)
        keep("wrong_captions", images[rows], [told[-1], *told[:-1]])
    return found, f"{own.lpips.note}; {own.clip.note}"


def _shown(values: Sequence[float]) -> str:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


TOLD = (
    "published_score",
    "style_term",
    "brightness_mean",
    "lpips_diversity",
    "clip_consistency",
    "identity",
    "failures",
)


def _pictures() -> Iterator[dict[str, Any]]:
    """One figure a kind of pictures: its score, and what else was measured in its note."""
    found, networks = _of_pictures()
    for kind, metrics in found.items():
        told = ", ".join(f"{name} {_shown(metrics[name])}" for name in TOLD if name in metrics)
        scores = metrics.get("score")
        yield common.result(
            f"metrics_{kind}",
            measured=None if scores is None else round(float(np.median(scores)), 4),
            goal=None,
            unit="score, targets by reference",
            runs=DRAWS,
            note=f"medians (5% to 95%) of draws of {N}: score {_shown(scores or [math.nan])}, {told}; {networks}",
        )


def _solubility() -> dict[str, Any]:
    """F1 of a model that says yes to everything, on the labels of the chi tables."""
    with (common.data_folder() / "chi" / "data_PI.csv").open(encoding="utf-8") as file:
        true = np.array([row["soluble"] == "True" for row in csv.DictReader(file)])
    said = of_labels(np.ones_like(true), true)
    told = f"recall {said['sol_recall']:.3f}, accuracy {said['sol_accuracy']:.3f}"
    return common.result(
        "metrics_all_yes",
        measured=round(said["sol_f1"], 4),
        goal=None,
        unit="sol_f1",
        runs=1,
        note=f"a model that says yes to everything: {told}; {len(true)} labels of chi, {true.mean():.1%} of them true",
    )


def _groups() -> dict[str, Any]:
    """The worst of six groups of fifty rows, where all groups are equally good."""
    hits = np.random.default_rng(0).binomial(50, 0.8, size=(10_000, 6)) / 50
    return common.result(
        "metrics_worst_of_equal_groups",
        measured=round(float(hits.min(axis=1).mean()), 4),
        goal=None,
        unit="worst group accuracy",
        runs=len(hits),
        note="six groups of 50 rows, each truly 80% right",
    )


def _importance() -> Iterator[dict[str, Any]]:
    """The largest share that fANOVA gives to one of eight hyperparameters, none of which does anything."""
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    repeats = 3 if common.QUICK else 20
    names = [f"x{number}" for number in range(8)]
    for trials in (10, 20, 50):
        largest = []
        for seed in range(repeats):
            draw = np.random.default_rng(seed)
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
            for _ in range(trials):
                trial = study.ask({name: optuna.distributions.FloatDistribution(0, 1) for name in names})
                study.tell(trial, float(draw.normal()))
            shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(n_trees=16, seed=0))
            largest.append(max(shares.values()))
        yield common.result(
            f"metrics_importance_of_nothing_{trials}",
            measured=round(statistics.median(largest), 3),
            goal=None,
            unit="largest share of the variance",
            runs=repeats,
            note=f"{trials} random trials of eight hyperparameters that do nothing; 5% to 95%: {_shown(largest)}",
        )


def main() -> None:
    common.write("metrics_lie", [*_pictures(), _solubility(), _groups(), *_importance()])


if __name__ == "__main__":
    main()
