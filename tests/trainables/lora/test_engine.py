"""The engine equals plain peft and torch, continues exactly, and stops what goes wrong."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import plain_engine
from tests.trainables.lora.small import TARGETS, attached, engine_on, loss_of, part, small, train
from trainables.lora.adapters import Adapter
from trainables.lora.choices import OPTIMIZERS, SCHEDULES
from trainables.lora.engine import LoraEngine
from trainables.lora.optimization import Optimization
from trainables.lora.safety import out_of_memory_is_a_cause
from trainables.lora.settings import EngineSettings
from trainables.protocol import Cause, TrialFailure

ROUNDING = {"AdamW8bit": 1e-3, "Lion": 1e-3}
"""How far loss curves may part: these optimizers keep rounded state, or only the sign of a gradient."""


def states_are_close(ours, theirs, tolerance=1e-5):
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=tolerance, atol=tolerance / 10, msg=name)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_ten_steps_equal_a_plain_loop(optimizer, accumulation):
    model, twin = small(), small()
    adapter = attached(model)
    plain_engine.with_peft(twin, TARGETS.ends, 4, 2.0)
    plain_engine.take_weights(twin, {name.removeprefix("model."): value for name, value in adapter.state().items()})
    chosen = EngineSettings(
        optimizer, lr_warmup_steps=3, gradient_accumulation_steps=accumulation, max_grad_norm=0.8
    )  # fmt: skip
    ours = train(engine_on(adapter, chosen), model, range(10), accumulation)
    batches = [lambda index=index: loss_of(twin, index) for index in range(10 * accumulation)]
    groups = [{"params": plain_engine.parameters(twin), "lr": 1e-2}]
    theirs = plain_engine.train(
        batches, groups, name=optimizer, steps=10, accumulation=accumulation, max_norm=0.8, warmup=3
    )
    assert ours == pytest.approx(theirs, rel=ROUNDING.get(optimizer, 1e-5))
    assert ours[-1] != pytest.approx(ours[0])
    if optimizer not in ROUNDING:
        state = {name.removeprefix("model."): value for name, value in adapter.state().items()}
        states_are_close(state, {name: plain_engine.weights(twin)[name] for name in state})


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_restored_engine_continues_as_if_never_stopped(optimizer, schedule, tmp_path):
    chosen = EngineSettings(
        optimizer, schedule, lr_scheduler_num_cycles=2, lr_warmup_steps=2, gradient_accumulation_steps=2, ema_decay=0.9
    )
    options = {"conv_rank": 2, "dora": True, "loraplus_ratio": 4.0}
    model, twin = small(), small()
    through = engine_on(attached(model, **options), chosen, 8)
    train(through, model, range(8), 2)

    first = attached(twin, **options)
    half = engine_on(first, chosen, 8)
    train(half, twin, range(4), 2)
    half.save(tmp_path, budget=4)
    first.detach()
    second = engine_on(attached(twin, seed=9, **options), chosen, 8)
    assert second.restore(tmp_path) == {"budget": 4}
    assert second.lanes[0].rates == half.lanes[0].rates
    train(second, twin, range(4, 8), 2)
    states_are_close(second.lanes[0].adapter.state(), through.lanes[0].adapter.state())
    with second.lanes[0].judged(), through.lanes[0].judged():
        states_are_close(second.lanes[0].adapter.state(), through.lanes[0].adapter.state())


def test_a_checkpoint_of_another_adapter_is_not_taken(tmp_path):
    engine = engine_on(attached(small()))
    engine.save(tmp_path)
    with pytest.raises(ValueError, match="does not fit the adapter"):
        engine_on(attached(small(), rank=8)).restore(tmp_path)


def test_several_adapters_on_bases_of_their_own_train_as_if_alone():
    models, alone = [small(), small()], [small(), small()]
    rates, chosen = (1e-2, 3e-3), EngineSettings(lr_scheduler="constant")
    together = LoraEngine(
        [Optimization(attached(model, rate), chosen, 5) for model, rate in zip(models, rates, strict=True)]
    )
    for index in range(5):
        together.accumulate([loss_of(models[0], index), loss_of(models[1], 50 + index)], [1.0, 1.0])
        together.step()
    for place, (model, rate) in enumerate(zip(alone, rates, strict=True)):
        engine = engine_on(attached(model, rate), chosen, 5)
        for index in range(5):
            engine.accumulate([loss_of(model, 50 * place + index)], [1.0])
            engine.step()
        states_are_close(together.lanes[place].adapter.state(), engine.lanes[0].adapter.state())


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 7), max_size=3, unique=True))
def test_a_step_is_that_of_its_samples_however_they_are_cut_into_micro_batches(cuts):
    whole, cut = small(), small()
    x, y = torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(0)), torch.ones(8, 4)
    one, other = engine_on(attached(whole)), engine_on(attached(cut))
    one.accumulate([(whole(x) - y).square().mean()], [1.0])
    one.step()
    edges = [0, *sorted(cuts), 8]
    for start, end in itertools.pairwise(edges):
        loss = (cut(x[start:end]) - y[start:end]).square().mean()
        other.accumulate([loss], [(end - start) / 8])
    other.step()
    # Adam divides by the gradient's size: where that is next to nothing, its rounding shows.
    for ours, theirs in zip(
        other.lanes[0].adapter.state().values(), one.lanes[0].adapter.state().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_second_matrices_may_have_a_rate_of_their_own():
    engine = engine_on(attached(small(), 1e-3, loraplus_ratio=16.0), EngineSettings(lr_scheduler="constant"))
    assert engine.lanes[0].rates == pytest.approx([1e-3, 1.6e-2])


def test_each_model_has_a_rate_of_its_own():
    first, second = part(small(), 1e-2), part(small(), 1e-4)
    adapter = Adapter([first, type(second)("other", second.model, second.rate, second.shape, second.targets)])
    engine = engine_on(adapter.attach(0), EngineSettings("Prodigy", lr_scheduler="constant"))
    assert engine.lanes[0].rates == pytest.approx([1e-2, 1e-4])


def test_no_clipping_is_a_norm_of_nought():
    clipped, free, huge = small(), small(), small()
    for model, limit in ((clipped, 1e-3), (free, 0.0), (huge, 1e9)):
        chosen = EngineSettings("Adafactor", "constant", max_grad_norm=limit)
        train(engine_on(attached(model), chosen), model, range(3))
    assert not torch.equal(clipped.to_q.lora_B.weight, free.to_q.lora_B.weight)
    assert torch.equal(free.to_q.lora_B.weight, huge.to_q.lora_B.weight)


def test_the_average_is_judged_and_training_goes_on_with_the_weights():
    model = small()
    engine = engine_on(attached(model), EngineSettings(lr_scheduler="constant", ema_decay=0.9))
    seen = []
    for step in range(5):
        train(engine, model, [step])
        seen.append(model.to_k.lora_B.weight.detach().clone())
    average = torch.zeros_like(seen[0])
    for step, value in enumerate(seen, 1):
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
    with engine.lanes[0].judged():
        torch.testing.assert_close(model.to_k.lora_B.weight.detach(), average)
    assert torch.equal(model.to_k.lora_B.weight, seen[-1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_trial_with_its_cause(value):
    model = small()
    engine = engine_on(attached(model))
    with pytest.raises(TrialFailure) as caught:
        engine.accumulate([loss_of(model, 0) * value], [1.0])
    assert caught.value.cause is Cause.NAN_LOSS
    assert "step 0" in caught.value.message
    assert all(parameter.grad is None for parameter in engine.lanes[0].adapter.parameters())


def test_a_gradient_that_is_not_finite_is_an_explosion():
    model = small()
    engine = engine_on(attached(model))
    loss = loss_of(model, 0)
    loss.register_hook(lambda gradient: gradient * float("inf"))
    engine.accumulate([loss], [1.0])
    with pytest.raises(TrialFailure) as caught:
        engine.step()
    assert caught.value.cause is Cause.GRADIENT_EXPLOSION


def grown(engine, model):
    for index in range(40):
        engine.accumulate([loss_of(model, index) * 1000], [1.0])
        engine.step()


@pytest.mark.parametrize("restored", [False, True])
def test_a_loss_that_grows_tenfold_is_an_explosion_also_after_a_restart(restored, tmp_path):
    model = small()
    adapter = attached(model, rate=0.0)
    engine = engine_on(adapter, total=100)
    train(engine, model, range(20))
    if restored:
        engine.save(tmp_path)
        engine = engine_on(adapter, total=100)
        engine.restore(tmp_path)
    with pytest.raises(TrialFailure) as caught:
        grown(engine, model)
    assert caught.value.cause is Cause.GRADIENT_EXPLOSION


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_to_nearly_the_same_with_adapters_in_fp32(precision):
    exact, half = small(), small()
    whole = train(engine_on(attached(exact), EngineSettings(lr_scheduler="constant"), 20), exact, range(20))
    adapter = attached(half)
    engine = engine_on(adapter, EngineSettings(lr_scheduler="constant"), 20, precision=precision)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    with torch.autocast("cpu", dtype):
        rough = train(engine, half, range(20))
    assert rough == pytest.approx(whole, rel=0.05)
    assert all(parameter.dtype is torch.float32 for parameter in adapter.parameters())


def test_clipping_sees_gradients_unscaled():
    exact, half = small(), small()
    chosen = EngineSettings("Adafactor", "constant", max_grad_norm=1e-2)
    train(engine_on(attached(exact), chosen), exact, range(5))
    train(engine_on(attached(half), chosen, precision="fp16"), half, range(5))
    torch.testing.assert_close(half.to_k.lora_B.weight, exact.to_k.lora_B.weight, rtol=1e-4, atol=1e-6)


def forty_times(action):
    for _ in range(40):
        action()


def test_an_overflow_in_fp16_is_left_out_and_only_a_lasting_one_is_an_explosion():
    model = small()
    engine = engine_on(attached(model), EngineSettings(lr_scheduler="constant"), 100, precision="fp16")
    before = copy.deepcopy(engine.lanes[0].adapter.state())

    def overflow():
        loss = loss_of(model, 0)
        loss.register_hook(lambda gradient: gradient * float("inf"))
        engine.accumulate([loss], [1.0])
        engine.step()

    overflow()
    states_are_close(engine.lanes[0].adapter.state(), before)
    train(engine, model, range(2))
    assert not torch.equal(engine.lanes[0].adapter.state()["model.to_k.lora_B.weight"], torch.zeros(4, 4))
    with pytest.raises(TrialFailure) as caught:
        forty_times(overflow)
    assert caught.value.cause is Cause.GRADIENT_EXPLOSION


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_an_overflow_in_one_model_harms_no_other(optimizer, limit):
    first, second = part(small(), 1e-2), part(small(1), 1e-2)
    adapter = Adapter([first, type(second)("other", second.model, second.rate, second.shape, second.targets)]).attach(0)
    chosen = EngineSettings(optimizer, "constant", max_grad_norm=limit, loraplus_lr_ratio=4.0)
    engine = engine_on(adapter, chosen, 100, precision="fp16")
    for step in range(3):
        broken, sound = loss_of(first.model, step), loss_of(second.model, step)
        if step == 1:
            broken.register_hook(lambda gradient: gradient * float("nan"))
        engine.accumulate([broken + sound], [1.0])
        before = adapter.state()
        engine.step()
        if step == 1:
            states_are_close(adapter.state(), before)
    assert all(torch.isfinite(value).all() for value in adapter.state().values())


def test_memory_that_cannot_be_had_is_a_cause_with_what_was_asked():
    with pytest.raises(TrialFailure) as caught, out_of_memory_is_a_cause():
        torch.empty(2**50, dtype=torch.uint8)
    assert caught.value.cause is Cause.OUT_OF_MEMORY
    assert "1125899906842624" in caught.value.message


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_what_a_gpu_says_without_memory_is_the_same_cause(said):
    with pytest.raises(TrialFailure) as caught, out_of_memory_is_a_cause():
        raise RuntimeError(said)
    assert (caught.value.cause, caught.value.message) == (Cause.OUT_OF_MEMORY, said.splitlines()[0])
