"""The peak of memory is that of the trial, not of what ran before it in the same process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.lora.text.memory import PeakMemory

CPU = torch.device("cpu")


def held(mib: int) -> None:
    block = np.ones(mib * 2**20, dtype=np.uint8)
    assert block[-1] == 1


def test_what_is_held_for_a_moment_counts() -> None:
    peak = PeakMemory(CPU)
    before = peak.gib()
    held(256)
    assert peak.gib() - before == pytest.approx(0.25, abs=0.05)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the mark can be set back on Linux only")
def test_what_was_held_before_does_not() -> None:
    first = PeakMemory(CPU)
    held(512)
    high = first.gib()
    assert high - PeakMemory(CPU).gib() > 0.4
