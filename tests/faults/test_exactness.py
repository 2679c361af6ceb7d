"""A real training whose worker is killed goes on exactly: weights, optimizer, schedule and random numbers."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.faults.processes import training_processes
from trainables import demo_character
from tune_lora import spec as specs
from tune_lora import study
from tune_lora.records import CLOCK, TrialRecord

pytestmark = pytest.mark.slow


def mapping(folder: Path, images: Path) -> dict:
    return {
        "name": "exact",
        "dataset": {"path": str(images), "batch_size": 3},
        "space": "lora_tiny",
        "fixed": {"max_train_epochs": 4},
        "evaluation": {"n_images": 2, "steps": 2},
        "scheduler": {"name": "none"},
        "search": {"seed": 1},
        "budget": {"n_trials": 1, "plateau": None},
        "resources": {"cpu": 1, "concurrent": 1},
        "tracking": {"wandb": "off"},
        "results": str(folder),
    }


def kill_after(checkpoint: Path, killed: list[int]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not killed:
        if checkpoint.is_dir():
            for process in training_processes():
                process.kill()
                killed.append(process.pid)
        time.sleep(0.02)


def trained(folder: Path, images: Path) -> TrialRecord:
    (trial,) = study.run(specs.from_mapping(mapping(folder, images), "test")).trials
    assert trial.state == "complete", trial.message
    return trial


def measured(trial: TrialRecord) -> dict[int, dict[str, float]]:
    return {at: {k: v for k, v in told.items() if k not in CLOCK} for at, told in trial.history.items()}


def test_weights_and_metrics_are_those_of_a_training_that_was_never_disturbed(tmp_path, monkeypatch, ray_session):
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path / "cache"))
    images, killed = tmp_path / "images", []
    demo_character.write_dataset(images, count=12)
    quiet = trained(tmp_path / "quiet", images)
    second = tmp_path / "hit" / "exact" / "trials" / "0" / "checkpoint" / "00000002"
    thread = threading.Thread(target=kill_after, args=(second, killed))
    thread.start()
    hit = trained(tmp_path / "hit", images)
    thread.join()
    assert killed, f"no worker was found to kill by process {os.getpid()}"
    assert measured(hit) == measured(quiet)
    assert list(hit.history) == [1, 2, 3, 4]
    files = sorted(path.name for path in (tmp_path / "quiet/exact/trials/0/lora").glob("*.safetensors"))
    assert files
    for name in files:
        one, other = (load_file(tmp_path / which / "exact/trials/0/lora" / name) for which in ("quiet", "hit"))
        assert one.keys() == other.keys()
        assert all(one[key].tobytes() == other[key].tobytes() for key in one), name
