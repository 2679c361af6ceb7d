"""The first step of a trial on a disk that has no room just then, and of one that goes on elsewhere."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainables import ray_adapter
from trainables.curve import Curve
from trainables.ray_adapter import Lost, trainable_for

pytestmark = pytest.mark.alone


def started(folder: Path) -> Any:
    config = {
        "params": {"learning_rate": 1e-3, "max_train_epochs": 4},
        "trial": {"number": 3, "folder": str(folder), "seed": 1, "decide_at": []},
    }
    return trainable_for(Curve(), "score", threads=1)(config)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with one whole checkpoint of a trial, and no room beside ``filler``."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount")
    try:
        started(disk / "3").train()
        with pytest.raises(OSError, match="No space left"):
            (disk / "filler").write_bytes(b"\0" * 2**20)
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_has_no_room_just_then_is_waited_for(full_disk: Path) -> None:
    making_room = threading.Timer(2.0, (full_disk / "filler").unlink)
    making_room.start()
    trial = started(full_disk / "3")
    result = trial.train()
    making_room.join()
    assert result["budget"] == 1 and "cause" not in result
    assert [trial.train()["budget"] for _ in range(3)] == [2, 3, 4]


def test_a_disk_that_has_no_room_for_longer_is_the_machines_fault(
    full_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_adapter, "PATIENCE_SECONDS", 1.0)
    with pytest.raises(Lost, match="No space left on device"):
        started(full_disk / "3").train()
    (full_disk / "filler").unlink()
    assert started(full_disk / "3").train()["budget"] == 1
