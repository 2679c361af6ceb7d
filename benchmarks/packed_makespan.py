"""A whole ASHA study of 24 image LoRAs, packed and unpacked, on the same cores: `tune-lora run` in a process of its
own, caches warm, workers reused; nothing but `resources.packing` differs.

Two forms. *Same trials*: all configurations are drawn beforehand and listed in the study file, so that both sides
train the same ones with the same seeds; curves are compared trial by trial, as far as neither was stopped. *Search*:
the sampler suggests. More trials at a time means that it, and ASHA, know less when they are asked, so that the two
sides try other configurations and stop at other points: what that costs or gains is part of the figure.

Makespan is from the first trial's start to the last one's end. How far apart two best scores are is told in spreads:
the largest less the smallest score of the best configuration over five seeds.

Takes half an hour or so. In a folder that ``$TUNE_LORA_MAKESPAN`` names, studies are kept, and those that have run are
not run again: give it where that time may not come in one piece.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks import common
from benchmarks.packed_makespan_figures import Pair, Ran, figures, history_distance, loss_distances, shown
from search_spaces.points import draw
from search_spaces.space import Space
from trainables import demo_character
from trainables.protocol import Cause, TrialContext
from tune_lora import build, spec, store
from tune_lora.records import TrialRecord

TRIALS, RUNS, IMAGES, MORE_SEEDS, CONTROLS = (4, 1, 16, 1, 1) if common.QUICK else (24, 1, 96, 4, 3)
EPOCHS: Mapping[str, Any] = {"max_train_epochs": 4} if common.QUICK else {}
EVALUATION: Mapping[str, Any] = {"n_images": 2, "steps": 2} if common.QUICK else {}
SEED, SEEDS = 42, 9000
SIDES: Mapping[str, Mapping[str, Any]] = {"unpacked": {"cpu": 1}, "packed": {"cpu": 1, "packing": 8}}
FORMS = ("same trials",) if common.QUICK else ("same trials", "search")


def configurations(count: int, seed: int) -> list[dict[str, Any]]:
    """Different ones of the space, drawn evenly; they keep its rules."""
    space, rng = Space.load("lora_tiny").with_fixed(EPOCHS), np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    while len(found) < count:
        one = yaml.safe_load(yaml.safe_dump(draw(space, rng)))
        if one not in found:
            found.append(one)
    return found


def images(folder: Path) -> tuple[Path, str]:
    """Captioned images, and what they are: some of the real character where its renders are, else one that is drawn."""
    renders = Path(os.environ.get("TUNE_LORA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    renders = renders / "fluent3d" / "character"
    shown = [path for path in sorted(renders.glob("*.webp")) if path.with_suffix(".txt").is_file()][:IMAGES]
    if not shown and not folder.is_dir():
        demo_character.write_dataset(folder, count=IMAGES)
    folder.mkdir(parents=True, exist_ok=True)
    for path in shown:
        for one in (path, path.with_suffix(".txt")):
            shutil.copyfile(one, folder / one.name)
    return folder, f"{len(shown)} renders of Fluent Emoji's smiley" if shown else f"{IMAGES} drawn images"


def study_file(folder: Path, form: str, side: str, seed: int, data: Path, trials: int = TRIALS) -> Path:
    """A study file of one form and side; its results are to be beside it."""
    given = {"start_with": configurations(trials, seed), "sampler": "random"} if form == "same trials" else {}
    document = {
        "name": "study",
        "base": "tiny-sd",
        "dataset": {"path": str(data), "batch_size": 1},
        "space": "lora_tiny",
        "fixed": dict(EPOCHS),
        "search": {"sampler": "tpe", "n_startup_trials": 8, "seed": seed, **given},
        "scheduler": {"name": "asha", "grace": 3, "eta": 2},
        "evaluation": dict(EVALUATION),
        "objective": {"weights": {"identity": 0.30}},
        "budget": {"n_trials": trials, "plateau": None},
        "resources": dict(SIDES[side]),
        "tracking": {"wandb": "off"},
        "results": str(folder),
    }
    path = folder / "study.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")
    return path


def run(study: Path, cache: Path) -> Ran:
    """Runs a study file by the command; one that has run is not run again.

    Raises:
        SystemExit: the command failed, or a trial did through no fault of its configuration; with what was said.
    """
    environment = {**os.environ, "TUNE_LORA_CACHE": str(cache)}
    kept = study.with_suffix(".seconds")
    if kept.is_file():
        return Ran(store.load(study.parent / "study"), float(kept.read_text("utf-8")))
    shutil.rmtree(study.parent / "study", ignore_errors=True)  # of a run that was cut off
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tune_lora.cli", "run", str(study)],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - begun
    if done.returncode:
        raise SystemExit(f"{study}: the command ended with exit code {done.returncode}\n{done.stdout}{done.stderr}")
    record = store.load(study.parent / "study")
    failed = [trial for trial in record.trials if trial.cause and not trial.cause.is_fault_of_configuration]
    if wrong := [f"{one.number}: {one.cause} {one.message}" for one in failed if one.cause is not Cause.PRUNED]:
        raise SystemExit(f"{study}: trials failed\n" + "\n".join(wrong))
    kept.write_text(f"{seconds}\n", "utf-8")
    return Ran(record, seconds)


def seed_scores(study: Path, best: TrialRecord, scratch: Path) -> list[float]:
    """Scores of a configuration that is trained again with seeds that no trial had."""
    trainer, shared, scores = build.plan(spec.load(study)).trainer, dict[str, Any](), list[float]()
    for seed in range(SEEDS, SEEDS + MORE_SEEDS):
        context = _context(best.config, seed, scratch / "seeds" / str(seed), os.cpu_count() or 1, shared)
        scores.append(list(trainer.run(context))[-1].metrics["score"])
        print(f"seed {seed}: score {scores[-1]:.4f}", flush=True)
    return scores


def controls(study: Path, pair: Pair, scratch: Path) -> dict[int, float]:
    """Of the trials whose losses are furthest apart: how far each is from itself, alone, on one thread and on two,
    after as many epochs. What that is, is not the pack's doing."""
    trainer, shared, found = build.plan(spec.load(study)).trainer, dict[str, Any](), dict[int, float]()
    apart = loss_distances(pair["packed"].record, pair["unpacked"].record)
    for number in sorted(apart, key=lambda number: -apart[number])[:CONTROLS]:
        trial = pair["unpacked"].record.trials[number]
        epochs = min(one.record.trials[number].last_budget for one in pair.values())
        histories = []
        for threads in (1, 2):
            context = _context(trial.config, trial.seed, scratch / "controls" / str(number), threads, shared)
            with closing(trainer.run(context)) as reports:
                histories.append({one.budget: one.metrics for one in islice(reports, epochs)})
        found[number] = history_distance(*histories)
        print(f"trial {number} alone, one thread and two: {found[number]:.1g} apart", flush=True)
    return found


def _context(params: Mapping[str, Any], seed: int, folder: Path, threads: int, shared: dict[str, Any]) -> TrialContext:
    folder.mkdir(parents=True, exist_ok=True)
    return TrialContext(params, folder, seed=seed, threads=threads, shared=shared)


def measure(scratch: Path) -> tuple[dict[str, list[Pair]], list[float], dict[int, float], str]:
    """Pairs of studies by form, scores of the best configuration over seeds, `controls`, what was trained on."""
    cache, (data, what) = scratch / "cache", images(scratch / "images")
    run(study_file(scratch / "warm", "same trials", "unpacked", SEED, data, trials=1), cache)  # fills the caches
    pairs: dict[str, list[Pair]] = {form: [] for form in FORMS}
    for number in range(RUNS):
        for place, form in enumerate(FORMS):
            pair = {}
            for side in sorted(SIDES, reverse=(number + place) % 2 == 0):  # neither is always first
                folder = scratch / form.replace(" ", "-") / str(number) / side
                pair[side] = run(study_file(folder, form, side, SEED + number, data), cache)
                print(f"{form}, {side}: {shown(pair[side])}", flush=True)
            pairs[form].append(pair)
    first, study = pairs["same trials"][0], scratch / "same-trials" / "0" / "unpacked" / "study.yaml"
    os.environ["TUNE_LORA_CACHE"] = str(cache)
    scores = [first["unpacked"].score, *seed_scores(study, first["unpacked"].best, scratch)]
    return pairs, scores, controls(study, first, scratch), what


def _figures(scratch: Path) -> list[dict[str, Any]]:
    pairs, scores, alone, what = measure(scratch)
    where = f"{TRIALS} trials, ASHA, lora_tiny on tiny-sd, {what}, batch 1, {os.cpu_count()} cores, "
    return figures(pairs, scores, alone, where + f"{SIDES['packed']} against {SIDES['unpacked']}")


def main() -> None:
    with ExitStack() as stack:
        chosen = os.environ.get("TUNE_LORA_MAKESPAN")
        scratch = chosen or stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        common.write("packed_makespan", _figures(Path(scratch).absolute()))


if __name__ == "__main__":
    main()
