"""Packing, order and targets: what one optimizer step is shown."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainables.lora.text.batches import IGNORED, Plan, collate, evaluation_batches, pack
from trainables.lora.text.tokens import Tokens

LENGTHS = st.lists(st.integers(2, 30), min_size=1, max_size=40)


def examples(lengths: list[int]) -> list[Tokens]:
    """Examples whose ids are all different; the second half of each is learnt."""
    starts = np.cumsum([0, *lengths])
    return [
        Tokens(np.arange(start, start + length, dtype=np.int32), np.arange(length) >= length // 2)
        for start, length in zip(starts, lengths, strict=False)
    ]


@given(LENGTHS)
def test_packing_holds_every_example_once_and_no_row_is_too_long(lengths: list[int]) -> None:
    rows = pack(examples(lengths), 30)
    assert all(sum(map(len, row)) <= 30 for row in rows)
    firsts = sorted(int(tokens.ids[0]) for row in rows for tokens in row)
    assert firsts == sorted(int(tokens.ids[0]) for tokens in examples(lengths))
    assert len(rows) <= 2 * -(-sum(lengths) // 30)  # no two rows of any fitting are half empty


@given(LENGTHS)
def test_a_target_is_the_next_token_of_the_same_example(lengths: list[int]) -> None:
    batch = collate(pack(examples(lengths), 30), pad=7)
    wanted = {int(t.ids[i]): int(t.ids[i + 1]) for t in examples(lengths) for i in range(len(t) - 1) if t.learnt[i + 1]}
    learnt = batch.targets != IGNORED
    pairs = zip(batch.ids[learnt].tolist(), batch.targets[learnt].tolist(), strict=True)
    assert dict(pairs) == wanted and batch.size == len(wanted)
    assert batch.tokens == sum(lengths)


def test_positions_begin_again_with_each_example_and_with_the_padding_behind_them() -> None:
    first, second, third = examples([3, 2, 7])
    batch = collate([(first, second), (third,)], pad=0)
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0, 1], [0, 1, 2, 3, 4, 5, 6]]


@given(st.integers(1, 30), st.integers(1, 3), st.integers(1, 3), st.integers(0, 5))
def test_an_epoch_shows_every_row_once_and_is_a_function_of_seed_and_step(
    count: int, batch_size: int, accumulation: int, seed: int
) -> None:
    rows = [(tokens,) for tokens in examples([4] * count)]
    plan = Plan(rows, batch_size, accumulation, seed, 0)
    for epoch in range(2):
        steps = range(epoch * plan.steps_per_epoch + 1, (epoch + 1) * plan.steps_per_epoch + 1)
        shown = [int(row[0]) for step in steps for batch in plan.step(step) for row in batch.ids]
        assert sorted(shown) == [4 * index for index in range(count)]
    again = Plan(rows, batch_size, accumulation, seed, 0)
    for one, other in zip(plan.step(1), again.step(1), strict=True):
        assert one.ids.equal(other.ids)


def test_the_same_rows_make_a_step_however_it_is_cut() -> None:
    rows = [(tokens,) for tokens in examples([5, 9, 3, 4, 8, 6, 7, 5, 4])]

    def first_tokens(batch_size: int) -> list[list[int]]:
        plan = Plan(rows, batch_size, 4 // batch_size, 3, 0)
        steps = range(1, plan.steps_per_epoch + 1)
        return [[int(row[0]) for batch in plan.step(step) for row in batch.ids] for step in steps]

    assert first_tokens(1) == first_tokens(2) == first_tokens(4)


@given(LENGTHS, st.integers(1, 4), st.integers(1, 3))
def test_processes_share_a_micro_batch_and_agree_on_its_size(lengths: list[int], batch_size: int, count: int) -> None:
    rows = [(tokens,) for tokens in examples(lengths)]
    whole = Plan(rows, batch_size, 2, 0, 0).step(1)
    parts = [Plan(rows, batch_size, 2, 0, 0, rank, count).step(1) for rank in range(count)]
    for batch, *mine in zip(whole, *parts, strict=True):
        assert {part.size for part in mine} == {batch.size} and sum(part.local for part in mine) == batch.size
        targets = sorted(value for part in mine for value in part.targets[part.targets != IGNORED].tolist())
        assert targets == sorted(batch.targets[batch.targets != IGNORED].tolist())


@given(LENGTHS)
def test_validation_shows_every_example_once(lengths: list[int]) -> None:
    batches = evaluation_batches(examples(lengths), 0, 64)
    assert sum(batch.tokens for batch in batches) == sum(lengths)
    assert sum(len(batch.ids) for batch in batches) == len(lengths)
    assert all(batch.ids.numel() <= 64 for batch in batches)
