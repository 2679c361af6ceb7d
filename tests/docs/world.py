"""A folder in which the commands and programs of the docs find what their pages speak of: data, and finished studies
that were made by the real searcher without a cluster."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.trainables.classification.makers import picture, write_images
from tests.tune_lora import rated
from tune_lora import build, exports, same_study, spec, store
from tune_lora.knowledge import Knowledge
from tune_lora.searcher import StudySearcher

ROOT = Path(__file__).parents[2]
TRIALS = 14
QUIET: dict[str, Any] = {"search": {"sampler": "random"}, "tracking": {"wandb": "off"}}
IMAGES: dict[str, Any] = {"dataset": {"path": "demo-character"}, "space": "lora_tiny"}
CLASSES: dict[str, Any] = {
    "trainer": "classifier",
    "data": {"path": "demo-shapes"},
    "space": {
        "name": "classes",
        "parameters": {
            "optimizer.lr": {"type": "loguniform", "low": 1e-4, "high": 1e-1},
            "training.batch_size": {"type": "categorical", "choices": [16, 32, 64]},
        },
    },
}
TEXT: dict[str, Any] = {
    "trainer": "llm_lora",
    "base": "Qwen/Qwen2.5-0.5B-Instruct",
    "text": {"path": "answers.jsonl"},
    "space": "llm_lora",
}
TRANSFER: dict[str, Any] = {"trainer": "two_stage", "space": "transfer_aware"}
RATES = ("learning_rate", "optimizer.lr", "lr_pretrain")
SMILES = ("CCO", "CCC", "CCCC", "CCN", "CCCO", "c1ccccc1", "CC(C)O", "CCOC", "CCCCC", "CC=O")


def _score(params: Mapping[str, Any]) -> float:
    rate = next(params[name] for name in RATES if name in params)
    return abs(math.log10(rate / 4e-3)) * 0.2 + 0.1


def _measured(params: Mapping[str, Any], number: int) -> dict[str, float]:
    score, draw = _score(params), np.random.default_rng(number)
    return {
        "score": score,
        "val_loss": score / 2,
        "val_acc": 1 - score,
        "exp_mae": score,
        "sol_f1": 1 - score,
        "stage1_mae": score,
        "failures": 0.0,
        "identity": 0.7 - score / 2,
        "clip_consistency": 0.2,
        "brightness_mean": float(draw.uniform(0.4, 0.6)),
        "contrast_mean": float(draw.uniform(0.15, 0.25)),
        "lpips_diversity": float(draw.uniform(0.3, 0.5)),
    }


def finished(folder: Path, document: Mapping[str, Any], *, pictures: bool) -> Path:
    """A finished study in `folder`, with every table that `tune-lora run` leaves; returns the folder."""
    given = {"name": folder.name, "budget": {"n_trials": TRIALS}, **QUIET, **document, "results": str(folder.parent)}
    ready = build.plan(spec.from_mapping(given, "docs"))
    folder.mkdir(parents=True)
    direction = ready.spec.objective.direction
    opened = store.open_study(ready.spec.storage_url, folder.name, direction)
    same_study.settle(opened, ready)
    searcher = StudySearcher(
        opened,
        ready.space,
        direction=direction,
        n_trials_total=TRIALS,
        sampler="random",
        seed=int.from_bytes(folder.name.encode()) % 1000,
        trial_folder=lambda number: folder / "trials" / str(number),
        knowledge=Knowledge(),
    )
    for number in range(TRIALS):
        suggested = searcher.suggest(str(number))
        assert isinstance(suggested, dict)
        metrics = _measured(suggested["params"], number)
        report = {"budget": 4, "metrics": metrics, "score": metrics[ready.spec.objective.metric], "final": True}
        if pictures:
            rated.trial(folder, number)  # its sheet of pictures
            report["images"] = {"epoch 4": f"trials/{number}/images/epoch_004.png"}
        searcher.on_trial_complete(str(number), report | {"seconds": 60.0})
    exports.write_all(opened, folder, ready.spec.as_mapping())
    return folder


def of_images(folder: Path) -> Path:
    """A study of image LoRAs."""
    return finished(folder, IMAGES, pictures=True)


def of_classes(folder: Path) -> Path:
    """A study of classifiers."""
    return finished(folder, CLASSES, pictures=False)


def of_text(folder: Path) -> Path:
    """A study of a language model."""
    return finished(folder, TEXT, pictures=False)


def of_transfer(folder: Path) -> Path:
    """A study of two stages."""
    return finished(folder, TRANSFER, pictures=False)


def judged(folder: Path) -> Path:
    """A study of image LoRAs whose pictures somebody has judged."""
    from tune_lora import ratings

    made = rated.study(folder, 4)
    ratings.Ratings(made).judge(2, 0, "left", "anna")
    ratings.keep(made)
    return made


STUDIES: dict[str, Callable[[Path], Path]] = {
    "demo": of_images,
    "demo-123": of_images,
    "images": of_images,
    "second": of_images,
    "first-attempt": of_images,
    "milo": judged,
    "my_images": of_classes,
    "flowers": of_classes,
    "answers": of_text,
    "measured": of_transfer,
}
"""Results folders that the docs speak of, by name, and who makes them."""


def _captioned(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(8):
        picture("red", number, 64).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"bobo, {('frontal', 'side')[number % 2]} view, happy smile\n")


def _by_class(folder: Path) -> None:
    for number in range(18):
        label = ("blue", "green", "red")[number % 3]
        (folder / label).mkdir(parents=True, exist_ok=True)
        picture(label, number).save(folder / label / f"{number}.png")


def _flowers(path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = [(*draw.normal(5, 1, 4), "iris" if number % 2 else "rose") for number in range(40)]
    lines = [",".join([*(f"{cell:.2f}" for cell in row[:4]), row[4]]) for row in rows]
    path.write_text("sepal_length,sepal_width,petal_length,petal_width,species\n" + "\n".join(lines) + "\n")


def _characters(folder: Path) -> None:
    listing = write_images(folder) / "metadata.jsonl"
    rows = [json.loads(line) for line in listing.read_text().splitlines()]
    listing.write_text("".join(json.dumps({**row, "category": row.pop("label")}) + "\n" for row in rows))


def _molecules(folder: Path) -> None:
    """Computed and measured values of pairs, and what was dissolved."""
    pairs = [f"{one}_{other}" for one in SMILES for other in SMILES[:6]]
    draw = np.random.default_rng(0)
    computed = [f"{pair},{draw.uniform(280, 320):.1f},{draw.normal():.3f}" for pair in pairs]
    (folder / "computed.csv").write_text("pair,temp,chi\n" + "\n".join(computed) + "\n")
    measured, soluble = [], []
    for number, pair in enumerate(pairs[::2]):
        chi = float(draw.normal())
        measured.append(f"{pair},{draw.uniform(280, 320):.1f},{chi:.3f},class {number % 6}")
        soluble.append(f"{pair},{int(chi < 0)}")
    (folder / "measured.csv").write_text("pair,temp,chi,polymer_class\n" + "\n".join(measured) + "\n")
    (folder / "soluble.csv").write_text("pair,soluble\n" + "\n".join(soluble) + "\n")
    (folder / "new.csv").write_text("pair,temp\n" + "\n".join(f"{pair},300" for pair in pairs[:5]) + "\n")


def _text(path: Path) -> None:
    path.write_text("".join(json.dumps({"prompt": f"{n} and 1?", "completion": f"{n + 1}"}) + "\n" for n in range(20)))


def write(folder: Path) -> None:
    """Data that the docs name, and links to what of the repository they name."""
    for name in ("search_spaces", "examples"):
        (folder / name).symlink_to(ROOT / name)
    _captioned(folder / "path" / "to" / "images")
    for part in ("faces", "bodies"):
        _captioned(folder / part)
    (folder / "data").mkdir()
    _by_class(folder / "data" / "my_images")
    _flowers(folder / "data" / "flowers.csv")
    _characters(folder / "data" / "my_characters")
    _molecules(folder)
    _text(folder / "answers.jsonl")
    known = {"network_dim": 8, "network_alpha_ratio": 0.5, "learning_rate": 8e-5, "text_encoder_lr": 5e-5, "value": 0.2}
    for name in ("favourites", "my_favourites", "past_trials"):
        (folder / f"{name}.csv").write_text(",".join(known) + "\n" + ",".join(map(str, known.values())) + "\n")


def prepare(folder: Path, text: str, made: Path) -> None:
    """Copies the finished studies that `text` names as ``results/NAME``; `made` keeps them for the next page."""
    for name in STUDIES.keys() & set(re.findall(r"results/([\w-]+)", text)):
        if not (made / name).exists():
            STUDIES[name](made / name)
        shutil.copytree(made / name, folder / "results" / name)


def trained_classifier(folder: Path) -> None:
    """``results/classifier/trained`` and new images."""
    from tune_lora import single

    write_images(folder / "shapes")
    document = {"trainer": "classifier", "data": {"path": "shapes"}, "space": CLASSES["space"], "name": "classifier"}
    _train(folder, document, {"optimizer.lr": 1e-2, "max_epochs": 1, "image_size": 16}, single.train)
    write_images(folder / "new_images", 3)


def trained_transfer(folder: Path, study: str) -> None:
    """``results/mine/trained``, by the study file that the page shows."""
    from tune_lora import single

    tiny = {"stage1_epochs": 1, "stage2_epochs": 1, "stage2_final_epochs": 1, "encoder_hidden_dims": "16"}
    defaults = build.space_of(spec.from_mapping(yaml.safe_load(study), "docs/transfer.md"))
    params = {name: one.default for name, one in defaults.parameters.items()} | dict(defaults.fixed) | tiny
    _train(folder, yaml.safe_load(study), params, single.train)


def _train(folder: Path, document: Mapping[str, Any], params: Mapping[str, Any], train: Callable[..., Path]) -> None:
    (folder / "trained.yaml").write_text(yaml.safe_dump({**document, "tracking": {"wandb": "off"}}))
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(params)))
    output = folder / "results" / document["name"] / "trained"
    train(folder / "trained.yaml", config=folder / "config.yaml", output=output)
