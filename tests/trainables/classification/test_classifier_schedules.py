"""Schedules against torch's own, and group weights and losses against what their formulas say."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.classification.schedules import Plateau, Schedule, multiplier
from trainables.classification.settings import chosen


def torchs(make, epochs: int, rates=(0.1,)) -> list[list[float]]:
    """The rates of each epoch under a torch scheduler."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    optimizer = torch.optim.SGD(groups)
    scheduler = make(optimizer)
    told = []
    for _ in range(epochs):
        told.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return told


def ours(params, epochs: int, rates=(0.1,)) -> list[list[float]]:
    settings = chosen({**params, "max_epochs": epochs})
    schedule = Schedule(settings, max(rates), higher_is_better=True)
    return [[rate * schedule.at(epoch) for rate in rates] for epoch in range(epochs)]


@pytest.mark.parametrize("epochs", [1, 7, 50])
def test_linear_is_torchs_linear_to_one_percent_for_every_group(epochs) -> None:
    expected = torchs(lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.01, epochs), epochs, (0.1, 0.01))
    for mine, theirs in zip(ours({"lr_schedule": "linear"}, epochs, (0.1, 0.01)), expected, strict=True):
        assert mine == pytest.approx(theirs)


@pytest.mark.parametrize(("size", "gamma"), [(15, 0.1), (5, 0.5), (1, 0.9)])
def test_step_is_torchs_step(size, gamma) -> None:
    expected = torchs(lambda o: torch.optim.lr_scheduler.StepLR(o, size, gamma), 40, (0.1, 0.01))
    found = ours({"lr_schedule": "step", "step_size": size, "gamma": gamma}, 40, (0.1, 0.01))
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs)


@pytest.mark.parametrize("epochs", [3, 30])
def test_cosine_is_torchs_cosine_down_to_the_floor(epochs) -> None:
    make = torch.optim.lr_scheduler.CosineAnnealingLR
    expected = torchs(lambda o: make(o, T_max=epochs, eta_min=1e-5), epochs)
    for mine, theirs in zip(ours({"lr_schedule": "cosine"}, epochs), expected, strict=True):
        assert mine == pytest.approx(theirs)


def test_a_cosine_below_its_floor_stays_where_it_is() -> None:
    assert ours({"lr_schedule": "cosine"}, 5, (1e-6,)) == [[pytest.approx(1e-6)]] * 5


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(0, 4), st.booleans())
def test_plateau_is_torchs_plateau(values, patience, higher) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    mode = "max" if higher else "min"
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, factor=0.5, patience=patience, threshold=0.0, eps=0.0
    )
    mine = Plateau(patience, 0.5, higher_is_better=higher)
    for value in values:
        theirs.step(value)
        mine.seen(value)
        again = Plateau(patience, 0.5, higher_is_better=higher)
        again.restore(mine.state())
        mine = again
        assert math.isclose(mine.factor, optimizer.param_groups[0]["lr"])


@given(st.sampled_from(["none", "linear", "step", "cosine", "plateau"]), st.integers(1, 60))
def test_a_multiplier_is_a_share_that_never_rises(name, epochs) -> None:
    told = [multiplier(name, epoch, epochs=epochs, floor_share=0.01) for epoch in range(epochs)]
    assert told[0] == 1.0
    assert all(0 < later <= earlier <= 1 for earlier, later in itertools.pairwise(told))


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of none, step"):
        multiplier("warm", 0, epochs=3)
