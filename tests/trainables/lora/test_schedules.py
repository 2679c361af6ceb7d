"""Schedules: the shapes that their names promise, from the first step to the last."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_scheduler

from trainables.lora.choices import SCHEDULES
from trainables.lora.schedules import multiplier

TOTALS = st.integers(min_value=2, max_value=2000)


@given(
    name=st.sampled_from(SCHEDULES), total=TOTALS, warmup=st.integers(0, 500), cycles=st.integers(1, 5), data=st.data()
)
def test_share_of_the_peak_rate_is_between_zero_and_one(name, total, warmup, cycles, data):
    step = data.draw(st.integers(0, total))
    share = multiplier(name, step, total=total, warmup=warmup, cycles=cycles)
    assert 0.0 <= share <= 1.0 and math.isfinite(share)


@given(name=st.sampled_from(SCHEDULES), total=st.integers(10, 500), warmup=st.integers(0, 500))
def test_a_warm_up_longer_than_the_trial_still_reaches_the_peak(name, total, warmup):
    shares = [multiplier(name, step, total=total, warmup=warmup) for step in range(total)]
    assert max(shares) == pytest.approx(1.0, abs=1e-9)


@given(total=TOTALS, warmup=st.integers(0, 200))
def test_warm_up_rises(total, warmup):
    rising = [multiplier("cosine", step, total=total, warmup=warmup) for step in range(min(warmup, total // 2) + 1)]
    assert rising == sorted(rising)


@pytest.mark.parametrize("name", ["linear", "cosine", "polynomial"])
def test_equals_transformers_without_warm_up(name):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    options = {"lr_end": 0.0, "power": 1.0} if name == "polynomial" else {}
    theirs = get_scheduler(name, optimizer, 0, 50, scheduler_specific_kwargs=options)
    for step in range(50):
        assert multiplier(name, step, total=50) == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        theirs.step()


def test_two_cycles_restart_in_the_middle():
    shares = [multiplier("cosine_with_restarts", step, total=100, cycles=2) for step in range(100)]
    assert shares[0] == 1.0
    assert shares[49] < 0.01
    assert shares[50] == 1.0


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(ValueError, match="must be one of constant, linear, cosine"):
        multiplier("cosin", 0, total=10)
