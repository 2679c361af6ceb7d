"""Studies for tests of tracking: trials as they look at some moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainables.lora.sheet import write_image_grid
from tune_lora.records import StudyRecord, TrialRecord
from tune_lora.tracking import Place

SPEC = {"space": {"name": "rates"}, "trainer": "curve", "search": {"sampler": "tpe", "seed": 42}}


def trial(number: int, epochs: int, state: str = "running", **changes: Any) -> TrialRecord:
    """A trial after some epochs; its score is seen at the second one."""
    settled: dict[str, Any] = {
        "value": 0.1 + number if state == "complete" else None,
        "params": {"network_dim": 64},
        "config": {"network_dim": 64, "network_alpha": 48},
        "metrics": {"val_loss": 1 / epochs} if epochs and state == "complete" else {},
        "history": {epoch: {"val_loss": 1 / epoch} for epoch in range(1, epochs + 1)},
        "curve": {2: 0.5} if epochs >= 2 else {},
        "seconds": 3.0,
        "seed": 7,
        **changes,
    }
    return TrialRecord(number=number, state=state, **settled)  # type: ignore[arg-type]  # a state as a plain word


def study(*trials: TrialRecord) -> StudyRecord:
    """A study of these trials."""
    return StudyRecord("glow", "minimize", trials, spec=SPEC)


def place(folder: Path, **changes: Any) -> Place:
    """Where its runs belong."""
    return Place("tune-lora", "glow", "a-token", folder, **changes)


def sheet(folder: Path, number: int) -> dict[int, dict[str, str]]:
    """A sheet of four pictures at the second epoch, the last one failed; returns it as a trial's images."""
    images = np.stack([np.full((32, 32, 3), shade, np.uint8) for shade in (50, 100, 150, 0)])
    path = folder / "trials" / str(number) / "images" / "epoch_002.png"
    prompts = ["front, happy", "side, sad", "back", "front, black"]
    write_image_grid(path, images, prompts, [False, False, False, True], "epoch 2", seeds=[10, 11, 12, 13])
    return {2: {"epoch 2": str(path.relative_to(folder))}}


def nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As on a machine where W&B was never used."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(folder / "no-netrc"))
