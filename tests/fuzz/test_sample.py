"""A short run of the fuzzing that `benchmarks/fuzz_inputs.py` does at length: whatever a user gives ends in a right
result or in clear lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fuzz import guided, running
from benchmarks.fuzz.kinds import KINDS

INPUTS = 30
WHICH_ARE_NEVER_RIGHT = ("weights", "parquet", "molecules")
"""Among so few, that is: hardly a changed byte of them is harmless."""


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_of_any_kind_ends_in_a_right_result_or_in_clear_lines(kind: str, root: Path) -> None:
    batch = running.run(kind, 0, INPUTS, root)
    assert batch.bad == []
    assert batch.count == INPUTS
    assert set(batch.outcomes) <= {"right", "refused"}
    assert "refused" in batch.outcomes or kind == "checkpoints"  # of which an older one is used
    assert "right" in batch.outcomes or kind in WHICH_ARE_NEVER_RIGHT


def test_the_same_seed_draws_the_same_inputs(root: Path) -> None:
    one, again = (running.run("expression", 3, 40, root) for _ in range(2))
    assert one.outcomes == again.outcomes
    assert running.run("expression", 4, 40, root).outcomes != one.outcomes


@pytest.mark.slow
def test_bytes_that_coverage_chooses_are_judged_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("atheris")
    monkeypatch.setenv("TUNE_LORA_FUZZ", str(tmp_path))  # of the process that it starts
    monkeypatch.setattr(guided, "WORK", tmp_path)
    outcomes = guided.run("expression", 200)
    assert set(outcomes) == {"right", "refused"}
    assert sum(outcomes.values()) >= 200
    assert len(list((tmp_path / "guided" / "expression" / "corpus").iterdir())) > 1  # something new was reached
