"""Stacked networks against torch's own, and lanes against themselves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.transfer.lanes import AdamW, Dropout, batches, generators
from trainables.transfer.stack import Mlp, Stack


def torch_mlp(net: Mlp, stack: Stack, lane: int) -> torch.nn.Sequential:
    """The same network of torch's own layers."""
    layers: list[torch.nn.Module] = []
    views = stack.views(stack.weights)
    for index, (inputs, outputs) in enumerate(zip(net.widths, net.widths[1:], strict=False)):
        linear = torch.nn.Linear(inputs, outputs).double()
        linear.weight.data = views[f"{net.name}.{index}.weight"][lane].T.clone()
        linear.bias.data = views[f"{net.name}.{index}.bias"][lane].clone()
        layers.append(linear)
        if index < len(net.hidden):
            layers += [torch.nn.BatchNorm1d(outputs).double()] if net.norm else []
            layers.append(torch.nn.ReLU())
    return torch.nn.Sequential(*layers)


@pytest.mark.parametrize("norm", [False, True])
def test_a_lane_is_torchs_network_in_training_and_evaluation(norm):
    net = Mlp("net", (5, 7, 6, 2), norm=norm)
    stack = Stack.fresh([net], [(1,), (2,), (3,)], torch.float64)
    x = torch.randn(3, 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theirs = [torch_mlp(net, stack, lane) for lane in range(3)]
    for _ in range(3):
        found = stack.run("net", stack.views(stack.weights), x, keep={}, valid=torch.ones(3, 9, dtype=torch.float64))
        for lane in range(3):
            torch.testing.assert_close(found[lane], theirs[lane].train()(x[lane]))
    found = stack.run("net", stack.views(stack.weights), x)
    for lane in range(3):
        torch.testing.assert_close(found[lane], theirs[lane].eval()(x[lane]))


def test_rows_that_fill_up_a_batch_do_not_touch_batch_norm():
    net = Mlp("net", (5, 7, 2), norm=True)
    x = torch.randn(1, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    filled = torch.cat([x, torch.full((1, 3, 5), 1e6, dtype=torch.float64)], dim=1)
    valid = torch.tensor([[1.0] * 6 + [0.0] * 3], dtype=torch.float64)
    alone, beside = (Stack.fresh([net], [(1,)], torch.float64) for _ in range(2))
    first = alone.run("net", alone.views(alone.weights), x, {}, valid[:, :6])
    second = beside.run("net", beside.views(beside.weights), filled, {}, valid)
    torch.testing.assert_close(first, second[:, :6])
    torch.testing.assert_close(alone.stats, beside.stats)


@given(st.integers(0, 2**32), st.lists(st.booleans(), min_size=6, max_size=6), st.floats(0, 0.5))
def test_the_optimizer_is_torchs_for_each_lane_that_moves(seed, turns, decay):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(2, 4, dtype=torch.float64, generator=generator)
    ours = start.clone()
    optimizer = AdamW(ours, 0.01, decay)
    theirs = [torch.nn.Parameter(row.clone()) for row in start]
    own = [torch.optim.AdamW([row], lr=0.01, weight_decay=decay) for row in theirs]
    for turn in turns:
        gradient = torch.randn(2, 4, dtype=torch.float64, generator=generator)
        optimizer.step(gradient, np.array([True, turn]))
        for lane in range(1 + turn):
            theirs[lane].grad = gradient[lane].clone()
            own[lane].step()
    torch.testing.assert_close(ours, torch.stack([row.detach() for row in theirs]))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(2, 16))
def test_an_epoch_shows_each_lane_its_own_rows_once(lengths, size):
    rows = [np.arange(length) + 100 * lane for lane, length in enumerate(lengths)]
    seen = [[] for _ in rows]
    for batch in batches(rows, size, generators([(lane,) for lane in range(len(rows))], 1)):
        for lane in range(len(rows)):
            seen[lane] += batch.rows[lane][batch.valid[lane]].tolist()
            assert batch.active[lane] == batch.valid[lane].any()
    assert [sorted(mine) for mine in seen] == [mine.tolist() for mine in rows]


def test_batches_and_masks_of_a_lane_do_not_depend_on_who_is_beside_it():
    rows, seeds = [np.arange(50), np.arange(90)], [(7, 0), (7, 1)]
    dropout = Dropout([Mlp("net", (3, 20, 10, 1), dropout=0.4)], torch.float64)
    both = list(batches(rows, 16, generators(seeds, 3)))
    alone = list(batches(rows[1:], 16, generators(seeds[1:], 3)))
    for first, second in zip(both, alone, strict=True):
        assert (first.rows[1] == second.rows[0]).all()
    *_, beside = (masks["net"] for masks in dropout.draw(16, 4, generators(seeds, 3)))
    *_, single = (masks["net"] for masks in dropout.draw(16, 4, generators(seeds[1:], 3)))
    assert beside.keys() == single.keys() == {1, 2}
    for layer in beside:
        torch.testing.assert_close(beside[layer][1], single[layer][0])


def test_dropout_keeps_its_share_and_the_mean():
    net = Mlp("net", (3, 400, 1), dropout=0.3)
    (drawn,) = Dropout([net], torch.float64).draw(500, 1, generators([(1,)], 1))
    (mask,) = drawn["net"].values()
    assert mask.unique().numel() == 2
    assert (mask == 0).double().mean().item() == pytest.approx(0.3, abs=0.005)
    assert mask.mean().item() == pytest.approx(1.0, abs=0.01)
