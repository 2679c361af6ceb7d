"""The loss: the same however examples are packed, padded or split into micro-batches, and no larger than needed."""

from __future__ import annotations

import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.lora.text import small_model
from trainables.lora.adapters import Adapter, LoraShape, Part
from trainables.lora.engine import LoraEngine
from trainables.lora.optimization import Optimization
from trainables.lora.settings import EngineSettings
from trainables.lora.targets import CAUSAL_LM
from trainables.lora.text.batches import Plan, collate, evaluation_batches, pack
from trainables.lora.text.loss import answer_loss, packs_cleanly, perplexity, validation_loss, validation_losses
from trainables.lora.text.tokens import Tokens
from trainables.protocol import TrialFailure

VOCABULARY = 97
MODEL = small_model.model(VOCABULARY).requires_grad_(False)


def examples(lengths: list[int], seed: int = 0) -> list[Tokens]:
    rng = np.random.default_rng(seed)
    return [
        Tokens(rng.integers(2, VOCABULARY, length).astype(np.int32), np.arange(length) >= max(1, length // 3))
        for length in lengths
    ]


def summed(rows: list) -> float:
    batch = collate(rows, pad=0)
    return float(answer_loss(MODEL, batch)) * batch.size


@given(st.lists(st.integers(2, 20), min_size=2, max_size=8))
@settings(max_examples=20)
def test_packed_examples_do_not_see_each_other(lengths: list[int]) -> None:
    made = examples(lengths)
    alone = sum(summed([(tokens,)]) for tokens in made)
    assert summed(pack(made, 24)) == pytest.approx(alone, rel=1e-4)
    assert summed([tuple(made)]) == pytest.approx(alone, rel=1e-4)


def test_padding_changes_nothing() -> None:
    short, long = examples([4, 19])
    assert summed([(short,), (long,)]) == pytest.approx(summed([(short,)]) + summed([(long,)]), rel=1e-5)


def test_the_loss_is_that_of_the_whole_logits() -> None:
    batch = collate([(tokens,) for tokens in examples([7, 12, 5])], pad=0)
    logits = MODEL(input_ids=batch.ids, position_ids=batch.positions).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-100)
    assert float(answer_loss(MODEL, batch)) == pytest.approx(float(expected), rel=1e-5)


def test_logits_are_computed_where_something_is_learnt_and_nowhere_else() -> None:
    seen = []
    handle = MODEL.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    batch = collate([(tokens,) for tokens in examples([7, 12, 5])], pad=0)
    try:
        answer_loss(MODEL, batch)
    finally:
        handle.remove()
    assert seen == [(batch.size, VOCABULARY)]


def test_a_model_that_cannot_choose_its_positions_gives_the_same_loss() -> None:
    class Old(torch.nn.Module):
        def forward(self, input_ids, position_ids, use_cache):
            return MODEL(input_ids=input_ids, position_ids=position_ids, use_cache=use_cache)

    batch = collate([(tokens,) for tokens in examples([7, 12])], pad=0)
    assert float(answer_loss(Old(), batch)) == pytest.approx(float(answer_loss(MODEL, batch)), rel=1e-6)


def trained(batch_size: int, packed: bool = False) -> dict[str, torch.Tensor]:
    """Adapter after five steps of four rows each, in micro-batches of this size."""
    model = small_model.model(VOCABULARY).requires_grad_(False)
    adapter = Adapter([Part("model", model, 1e-2, LoraShape(4, 8.0), CAUSAL_LM["all"])]).attach(0)
    rows = [(tokens,) for tokens in examples([5, 17, 9, 3, 12, 7, 4, 15, 6, 11], seed=3)]
    plan = Plan(rows, batch_size, 4 // batch_size, 1, 0)
    engine = LoraEngine([Optimization(adapter, EngineSettings(), 5)])
    for number in range(1, 6):
        step = plan.step(number)
        size = sum(batch.size for batch in step)
        for batch in step:
            engine.accumulate([answer_loss(model, batch)], [batch.local / size], [1.0])
        engine.step()
    return adapter.state()


def test_four_micro_batches_of_one_equal_one_of_four() -> None:
    """Answers differ in length: a mean of means would weigh the short ones more."""
    states = [trained(batch_size) for batch_size in (1, 2, 4)]
    for one, other in itertools.pairwise(states):
        for name, tensor in one.items():
            torch.testing.assert_close(tensor, other[name], rtol=1e-3, atol=2e-5)


def test_validation_is_the_mean_over_all_answer_tokens() -> None:
    made = examples([5, 17, 9, 3, 12])
    expected = summed([(tokens,) for tokens in made]) / sum(int(tokens.learnt[1:].sum()) for tokens in made)
    found = validation_loss(MODEL, evaluation_batches(made, 0, 20), nullcontext())
    assert found == pytest.approx(expected, rel=1e-5)
    assert perplexity(found) == pytest.approx(np.exp(found))


def test_a_validation_loss_that_is_no_number_ends_the_trial() -> None:
    broken = small_model.model(VOCABULARY)
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrialFailure, match="validation loss is nan"):
        validation_loss(broken, evaluation_batches(examples([5]), 0, 20), nullcontext())


def test_perplexity_stays_finite() -> None:
    assert perplexity(1e6) < float("inf")


def test_a_model_that_mixes_packed_examples_is_found_out() -> None:
    assert packs_cleanly(MODEL, VOCABULARY)

    class Blind(torch.nn.Module):
        """Takes positions and does not look at what they say about where examples begin."""

        device = torch.device("cpu")

        def forward(self, input_ids, position_ids, use_cache):
            return MODEL(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), use_cache=False)

    assert not packs_cleanly(Blind(), VOCABULARY)


@pytest.mark.parametrize("tokens", [0, 45, 10**6])
def test_several_adapters_are_validated_on_the_same_batches(tokens: int) -> None:
    passes: list[tuple[int, int, int]] = []
    batches = evaluation_batches(examples([5, 17, 9, 3, 12]), 0, 20)
    found = validation_losses(
        MODEL, batches, nullcontext(), adapters=5, tokens=tokens,
        tell=lambda asked, batch: passes.append((len(asked), batch.ids.numel(), batch.size)),
    )  # fmt: skip
    assert found == pytest.approx([validation_loss(MODEL, batches, nullcontext())] * 5, rel=1e-6)
    assert all(adapters == 1 or adapters * each <= tokens for adapters, each, _ in passes)
    assert sum(adapters * targets for adapters, _, targets in passes) == 5 * sum(batch.size for batch in batches)
    assert len(passes) == {0: 5 * len(batches), 45: len(passes), 10**6: len(batches)}[tokens] < 5 * len(batches) + 1
