"""Does a LoRA learn the real character, and does the search find a better one than the defaults? Fluent Emoji's
smiley, 96 images.

A study runs; then the space's default configuration and the study's best are each trained with three seeds that the
search never used. A margin is a difference of means over the larger spread (max - min over seeds) of the two; above
1, it is larger than the spread.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import common
from trainables.diffusion_lora import DiffusionLora
from trainables.protocol import TrialContext
from tune_lora import build, spec, study

STUDY = Path(__file__).parents[1] / "search_spaces" / "studies" / "character.yaml"
SEEDS = (9001, 9002, 9003)
Metrics = Mapping[str, float]


def _spec(results: str) -> spec.StudySpec:
    document = yaml.safe_load(STUDY.read_text())
    document["dataset"]["path"] = str(common.data_folder() / "fluent3d" / "character")
    if common.QUICK:
        document["budget"]["n_trials"] = 4
    return spec.from_mapping(document | {"results": results, "tracking": {"wandb": "off"}}, str(STUDY))


def _trained(trainer: DiffusionLora, params: Mapping[str, Any], shared: dict[str, Any]) -> list[Metrics]:
    """Final metrics of one configuration, a trial a seed."""
    found = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            context = TrialContext(params=params, folder=Path(folder), seed=seed, threads=2, shared=shared)
            found.append(list(trainer.run(context))[-1].metrics)
            print(seed, {name: round(found[-1][name], 4) for name in ("val_loss", "identity", "score")}, flush=True)
    return found


def _values(metrics: Sequence[Metrics], name: str) -> list[float]:
    return [float(one[name]) for one in metrics]


def margin(worse: Sequence[float], better: Sequence[float]) -> float:
    """How far apart two samples' means are, in units of the larger spread; positive when `worse` is larger."""
    spread = max(max(worse) - min(worse), max(better) - min(better))
    return (statistics.mean(worse) - statistics.mean(better)) / spread


def _told(name: str, values: Sequence[float]) -> str:
    return f"{name} {statistics.mean(values):.4f} ({min(values):.4f}-{max(values):.4f})"


def main(results: str) -> None:
    chosen = _spec(results)
    record = study.run(chosen)
    if record.best is None:
        raise SystemExit("no trial completed")
    ready, shared = build.plan(chosen), {}
    assert isinstance(ready.trainer, DiffusionLora)
    defaults = ready.space.resolve(ready.space.defaults())
    print("defaults", defaults, flush=True)
    default = _trained(ready.trainer, defaults, shared)
    print("best", dict(record.best.config), flush=True)
    best = _trained(ready.trainer, record.best.config, shared)
    base = record.baseline
    figures = []
    for metric, sign in (("val_loss", 1), ("identity", -1)):
        learnt, untrained = [sign * v for v in _values(default, metric)], [sign * base[metric]] * len(SEEDS)
        note = f"untrained base {base[metric]:.4f}; default {_told(metric, _values(default, metric))}, 3 seeds"
        measured = round(margin(untrained, learnt), 2)
        figures.append(_figure(f"lora_learns_{metric}", measured, "> 1", note))
    for metric, sign in (("score", 1), ("val_loss", 1), ("identity", -1)):
        ours, theirs = ([sign * v for v in _values(side, metric)] for side in (best, default))
        sides = _told(metric, _values(best, metric)), _told(metric, _values(default, metric))
        note = f"best of {len(record.trials)} trials {sides[0]}; default {sides[1]}"
        figures.append(_figure(f"study_best_against_default_{metric}", round(margin(theirs, ours), 2), None, note))
    common.write("lora_learns", figures)


def _figure(name: str, measured: float, goal: str | None, note: str) -> dict[str, Any]:
    return common.result(name, measured=measured, goal=goal, unit="spreads over seeds", runs=len(SEEDS), note=note)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(scratch)
