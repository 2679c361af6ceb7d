"""A trial that lost its worker and goes on is compared with as if nothing had happened."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from tune_lora import scheduler as schedulers

pytestmark = pytest.mark.alone


def trial(number: int, status: str = Trial.RUNNING) -> Any:
    return SimpleNamespace(trial_id=f"t{number}", config={"trial": {"number": number}}, status=status)


def decisions(promote: bool, lost: str | None) -> list[str]:
    """Of forty trials at two rungs; with `lost`, every third loses its worker after the first, in that status."""
    scheduler = schedulers.build("asha", grace=2, eta=2, max_budget=8, promote=promote)
    draw, made = random.Random(5), []
    for number in range(40):
        for budget in (2, 4):
            decision = scheduler.on_trial_result(None, trial(number), {"budget": budget, "score": draw.random()})
            made.append(str(decision))
            if decision != "CONTINUE":
                break
            if lost is not None and number % 3 == 0 and budget == 2:
                scheduler.on_trial_error(None, trial(number, lost))
    return made


@pytest.mark.parametrize("promote", [False, True])
def test_a_trial_that_is_started_again_keeps_its_place_at_the_rungs(promote: bool) -> None:
    assert decisions(promote, lost=Trial.ERROR) == decisions(promote, lost=None)


def test_one_that_is_given_up_is_no_longer_compared_with() -> None:
    assert decisions(False, lost=Trial.RUNNING) != decisions(False, lost=None)
