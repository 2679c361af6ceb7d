"""How long a study of 1,000 trials takes to go on: from the command to the first epoch of the next trial.

The study is made without a cluster by the real searcher. Then `tune-lora run STUDY --n-trials +1` in a process of its
own: Python and Ray start, the study is read, checked and told to the sampler, a worker starts and trains.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks import common

TRIALS = 100 if common.QUICK else 1_000
EPOCHS = 3


def _given(folder: str) -> dict[str, Any]:
    return {
        "name": "long",
        "trainable": "benchmarks.noop_trainer:train",
        "custom": {"horizon": EPOCHS},
        "space": {
            "name": "noop",
            "parameters": {
                "learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1},
                "rank": {"type": "categorical", "choices": [4, 8, 16]},
            },
        },
        "search": {"sampler": "tpe"},
        "budget": {"n_trials": TRIALS, "plateau": None},
        "resources": {"concurrent": 2},
        "tracking": {"wandb": "off"},
        "results": folder,
    }


def _make(path: Path) -> None:
    """A finished study, as the driver writes it."""
    from tune_lora import exports, same_study, spec, store
    from tune_lora.build import plan
    from tune_lora.searcher import StudySearcher

    asked = spec.load(path)
    ready = plan(asked)
    asked.folder.mkdir(parents=True)
    study = store.open_study(asked.storage_url, asked.name, "minimize")
    same_study.settle(study, ready)
    searcher = StudySearcher(
        study,
        ready.space,
        direction="minimize",
        n_trials_total=TRIALS,
        sampler="random",
        trial_folder=lambda number: asked.folder / "trials" / str(number),
    )
    for number in range(TRIALS):
        given = searcher.suggest(str(number))
        assert isinstance(given, dict)
        rate = given["params"]["learning_rate"]
        for epoch in range(1, EPOCHS + 1):
            report = {"budget": epoch, "metrics": {"score": rate + 1 / epoch}, "score": rate + 1 / epoch}
            searcher.on_trial_result(str(number), report | {"final": epoch == EPOCHS})
        searcher.on_trial_complete(str(number), report | {"final": True})
    exports.write_study_file(asked.as_mapping(), asked.folder)


def _resumed(path: Path, number: int) -> float:
    """Seconds from the command to the first epoch of the trial that is due."""
    from tune_lora import store

    began = time.time()
    command = [sys.executable, "-m", "tune_lora.cli", "run", str(path), "--n-trials", "+1"]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[1])
    record = store.load(path.parent / "results" / "long")
    assert len(record.trials) == number + 1
    return float(record.trials[number].history[1]["began"]) - began


def main() -> None:
    runs = 1 if common.QUICK else 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(yaml.safe_dump(_given(str(Path(folder) / "results"))))
        _make(path)
        seconds = [_resumed(path, TRIALS + run) for run in range(runs)]
    print(json.dumps(seconds))
    common.write(
        "resume_1000",
        [
            common.result(
                "resume_1000_seconds",
                measured=round(statistics.median(seconds), 1),
                goal="< 10",
                unit="s from the command to the first epoch",
                runs=runs,
                note=f"a study of {TRIALS} trials, TPE; the start of Python, Ray and a worker included",
            )
        ],
    )


if __name__ == "__main__":
    main()
