"""The engine equals plain torch, continues exactly, and stops what goes wrong."""

import copy

import pytest
import torch

from trainables.lora.adapters import Adapter
from trainables.lora.choices import OPTIMIZERS
from trainables.lora.engine import EngineSettings, LoraEngine, steps_per_epoch
from trainables.lora.safety import out_of_memory_is_a_cause
from trainables.protocol import Cause, TrialFailure


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q = torch.nn.Linear(96, 96)
        self.to_k = torch.nn.Linear(96, 4)

    def forward(self, x):
        return self.to_k(torch.tanh(self.to_q(x)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Small().requires_grad_(False)


def attached(model, rate=1e-2):
    return Adapter(model, ("to_q", "to_k"), rank=4, alpha=2, rate=rate).attach(seed=1)


def batch(index):
    generator = torch.Generator().manual_seed(index)
    return torch.randn(8, 96, generator=generator), torch.randn(8, 4, generator=generator)


def loss_of(model, index):
    x, y = batch(index)
    return (model(x) - y).square().mean()


def test_an_attached_adapter_starts_as_the_base_and_leaves_no_trace(model):
    x, _ = batch(0)
    before, names = model(x), [name for name, _ in model.named_parameters()]
    adapter = attached(model)
    assert torch.equal(model(x), before)
    engine = LoraEngine([adapter], EngineSettings(), 10)
    for index in range(5):
        engine.backward(loss_of(model, index))
    assert not torch.equal(model(x), before)
    adapter.detach()
    assert torch.equal(model(x), before)
    assert [name for name, _ in model.named_parameters()] == names


@pytest.mark.parametrize("accumulation", [1, 3])
def test_ten_steps_equal_a_plain_loop(model, accumulation):
    twin = copy.deepcopy(model)
    settings = EngineSettings("AdamW", "cosine", 1, 3, accumulation, 0.8)
    adapter = attached(model)
    engine = LoraEngine([adapter], settings, 10)
    for index in range(10 * accumulation):
        engine.backward(loss_of(model, index))

    plain = attached(twin)
    parameters = plain.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.01)
    from trainables.lora.schedules import multiplier

    for step in range(10):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * multiplier("cosine", step, total=10, warmup=3)
        for part in range(accumulation):
            (loss_of(twin, step * accumulation + part) / accumulation).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.8)
        optimizer.step()
        optimizer.zero_grad()
    for ours, theirs in zip(adapter.state().values(), plain.state().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_restored_engine_continues_as_if_never_stopped(model, optimizer, tmp_path):
    settings = EngineSettings(optimizer, "cosine_with_restarts", 2, 2, 2, 1.0)
    twin = copy.deepcopy(model)
    through = LoraEngine([attached(model)], settings, 8)
    for index in range(16):
        through.backward(loss_of(model, index))

    first = attached(twin)
    half = LoraEngine([first], settings, 8)
    for index in range(8):
        half.backward(loss_of(twin, index))
    half.save(tmp_path, budget=4)
    first.detach()
    second = LoraEngine([attached(twin)], settings, 8)
    assert second.restore(tmp_path) == 4
    assert second.rates == half.rates
    for index in range(8, 16):
        second.backward(loss_of(twin, index))
    for ours, theirs in zip(second.adapters[0].state().values(), through.adapters[0].state().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_each_adapter_has_its_own_rate(model):
    other = copy.deepcopy(model)
    engine = LoraEngine([attached(model, 1e-2), attached(other, 1e-4)], EngineSettings(lr_scheduler="constant"), 5)
    assert engine.rates == pytest.approx([1e-2, 1e-4])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_trial_with_its_cause(model, value):
    engine = LoraEngine([attached(model)], EngineSettings(), 5)
    with pytest.raises(TrialFailure) as caught:
        engine.backward(loss_of(model, 0) * value)
    assert caught.value.cause is Cause.NAN_LOSS
    assert "step 0" in caught.value.message


def test_a_gradient_that_is_not_finite_is_an_explosion(model):
    engine = LoraEngine([attached(model)], EngineSettings(), 5)
    loss = loss_of(model, 0)
    loss.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrialFailure) as caught:
        engine.backward(loss)
    assert caught.value.cause is Cause.GRADIENT_EXPLOSION


def test_a_loss_that_grows_tenfold_is_an_explosion(model):
    engine = LoraEngine([attached(model, rate=0.0)], EngineSettings(), 100)
    for index in range(20):
        engine.backward(loss_of(model, index))
    with pytest.raises(TrialFailure) as caught:
        _train(engine, model, factor=1000)
    assert caught.value.cause is Cause.GRADIENT_EXPLOSION


def _train(engine, model, factor):
    for index in range(40):
        engine.backward(loss_of(model, index) * factor)


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


@pytest.mark.parametrize(
    ("samples", "batch_size", "accumulation", "steps"), [(10, 4, 1, 3), (10, 4, 2, 2), (8, 4, 2, 1), (1, 4, 4, 1)]
)
def test_optimizer_steps_of_an_epoch(samples, batch_size, accumulation, steps):
    assert steps_per_epoch(samples, batch_size, accumulation) == steps
