"""LoRA layers compute what peft's compute; adapters come and go without a trace."""

import copy

import pytest
import torch

from benchmarks import plain_engine
from tests.trainables.lora.small import TARGETS, attached, engine_on, part, small, train
from trainables.lora.adapters import Adapter, require_layers
from trainables.lora.settings import EngineSettings
from trainables.lora.targets import Targets
from tune_lora.errors import InputError

KINDS = {
    "lora": {},
    "dora": {"dora": True},
    "rslora": {"rslora": True},
    "both": {"dora": True, "rslora": True},
}


@pytest.fixture
def model():
    return small()


def inputs(seed=0, n=5):
    return torch.randn(n, 4, 6, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_peft(model, kind):
    options, twin = KINDS[kind], small()
    adapter = attached(model, conv_rank=4, conv_alpha=2.0, **options)
    plain_engine.with_peft(
        twin, (*TARGETS.ends, *TARGETS.convolutions), 4, 2.0,
        use_dora=options.get("dora", False), use_rslora=options.get("rslora", False),
    )  # fmt: skip
    train(engine_on(adapter, EngineSettings(lr_scheduler="constant")), model, range(5))  # away from B = 0
    state = {name.removeprefix("model."): value for name, value in adapter.state().items()}
    plain_engine.take_weights(twin, state)
    ours, theirs = model(inputs()), twin(inputs())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    ours.square().mean().backward()
    theirs.square().mean().backward()
    named = dict(twin.named_parameters())
    assert {name.replace(".default", "").replace("vector.weight", "vector") for name in named if "lora_" in name} == {
        name for name in dict(model.named_parameters()) if "lora_" in name
    }
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        stem, _, end = name.rpartition(".")
        other = named[f"{name}.default.weight" if end.startswith("lora_mag") else f"{stem}.default.weight"]
        torch.testing.assert_close(parameter.grad, other.grad.reshape(parameter.shape), rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_starts_as_nothing_and_leaves_no_trace(model, kind):
    before, names = model(inputs()), [name for name, _ in model.named_modules()]
    weights = copy.deepcopy(model.state_dict())
    adapter = attached(model, conv_rank=2, **KINDS[kind])
    torch.testing.assert_close(model(inputs()), before)
    train(engine_on(adapter), model, range(5))
    assert not torch.allclose(model(inputs()), before, atol=1e-3)
    adapter.detach()
    assert torch.equal(model(inputs()), before)
    assert [name for name, _ in model.named_modules()] == names
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_delta_added_to_the_weights_gives_the_same_outputs(model, kind):
    adapter = attached(model, conv_rank=2, **KINDS[kind])
    train(engine_on(adapter), model, range(5))
    wanted = model(inputs())
    deltas = {name: layer.delta() for name, layer in adapter.layers()["model"].items()}
    adapter.detach()
    for name, delta in deltas.items():
        model.get_submodule(name).weight += delta
    torch.testing.assert_close(model(inputs()), wanted, rtol=1e-5, atol=1e-5)


def test_ranks_by_prefix_keep_the_proportion_and_nought_leaves_layers_out(model):
    adapter = attached(model, conv_rank=6, conv_alpha=3.0, ranks={"to_q": 8, "proj_in": 0})
    layers = adapter.layers()["model"]
    sizes = {name: (layer.rank, layer.alpha) for name, layer in layers.items()}
    assert sizes == {"conv1": (6, 3.0), "to_q": (8, 4.0), "to_k": (4, 2.0)}


@pytest.mark.parametrize("prefix", ["to", "to_Q", "to_q.weight"])
def test_a_rank_of_layers_that_are_not_there_is_refused(model, prefix):
    with pytest.raises(InputError, match=f"rank of '{prefix}': no layer's name begins so"):
        require_layers({"to_q": 4, prefix: 8}, [torch.nn.Linear(1, 1), model])


def test_a_model_has_one_adapter_at_a_time(model):
    first = attached(model)
    with pytest.raises(ValueError, match="has an adapter already; detach it first"):
        attached(model)
    assert len(first.layers()["model"]) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_layers_weight_is_the_summed_one_for_models_that_read_it(model, kind):
    adapter = attached(model, conv_rank=2, **KINDS[kind])
    train(engine_on(adapter), model, range(5))
    for layer in adapter.layers()["model"].values():
        torch.testing.assert_close(layer.weight, layer.base_layer.weight + layer.delta())
        assert layer.weight.requires_grad and layer.bias is layer.base_layer.bias


def test_a_row_of_zeros_is_no_trouble_to_dora(model):
    model.to_q.weight[3] = 0
    adapter = attached(model, dora=True)
    train(engine_on(adapter, EngineSettings(lr_scheduler="constant")), model, range(5))
    assert all(torch.isfinite(value).all() for value in adapter.state().values())


def test_lengths_do_not_decay(model):
    adapter = attached(model, rate=0.1, dora=True)
    engine = engine_on(adapter, EngineSettings(lr_scheduler="constant", weight_decay=0.5))
    before = adapter.state()
    for parameter in adapter.parameters():
        parameter.grad = torch.zeros_like(parameter)
    engine.step()
    for name, value in adapter.state().items():
        assert torch.equal(value, before[name]) is not ("lora_A" in name)


def test_a_rank_of_its_own_changes_convolutions_in_proportion(model):
    adapter = attached(model, conv_rank=2, conv_alpha=1.0, ranks={"conv1": 12})
    layer = adapter.layers()["model"]["conv1"]
    assert (layer.rank, layer.alpha) == (6, 3.0)  # 12 is three times the rank of 4


def test_the_same_seed_gives_the_same_start_and_another_another(model):
    first = attached(model, seed=1)
    state = first.state()
    first.detach()
    second = attached(model, seed=1)
    assert all(torch.equal(value, state[name]) for name, value in second.state().items())
    second.detach()
    third = attached(model, seed=2)
    assert not torch.equal(third.state()["model.to_q.lora_A.weight"], state["model.to_q.lora_A.weight"])


def test_dropout_acts_in_training_only(model):
    adapter = attached(model, dropout=0.5)
    train(engine_on(adapter), model, range(3))
    model.train()
    assert not torch.equal(model(inputs()), model(inputs()))
    model.eval()
    assert torch.equal(model(inputs()), model(inputs()))


def test_a_model_without_a_fitting_layer_is_named_and_left_clean(model):
    wrong = part(torch.nn.Sequential(torch.nn.ReLU()))
    adapter = Adapter([part(model), type(wrong)("other", wrong.model, 1e-3, wrong.shape, Targets(("x",)))])
    with pytest.raises(InputError, match=r"other \(Sequential\) has no layer"):
        adapter.attach(0)
    assert not any("lora_" in name for name, _ in model.named_parameters())
