"""The configuration that is measured before trials are packed: it needs at least what any other does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.space import Space
from tune_lora.heaviest import heaviest

SHIPPED = (
    "lora_v1", "lora_v2_1", "lora_tiny", "llm_lora", "transfer_aware", "classifier_comprehensive",
    "classifier_architecture", "multimodal_phases",
)  # fmt: skip


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("lora_v2_1", {"network_dim": 256, "optimizer_type": "AdamW", "gradient_accumulation_steps": 1}),
        ("llm_lora", {"lora_rank": 64, "batch_size": 4}),
        ("transfer_aware", {"encoder_latent_dim": 256, "encoder_hidden_dims": "1024_512_256"}),
        ("classifier_comprehensive", {"training.batch_size": 128}),
        ("classifier_architecture", {"model.architecture": "resnet50"}),
        ("multimodal_phases", {"batch_size": 128, "latent_dim": 256, "text_encoder": "transformer", "max_epochs": 10}),
    ],
)
def test_known_spaces(space, expected):
    found = heaviest(Space.load(space))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_a_whole_configuration(name):
    space = Space.load(name)
    found = heaviest(space)
    assert all(space.parameters[one].domain.contains(found[one]) for one in space.parameters if one in found)
    assert {one for one in space.parameters if space.exists(one, found)} <= found.keys()
    assert set(space.derived) <= found.keys()


@given(
    st.lists(st.integers(1, 512), min_size=1, max_size=6, unique=True), st.permutations(["AdamW", "Lion", "AdamW8bit"])
)
def test_no_batch_or_rank_is_larger_whatever_their_order(values, optimizers):
    space = Space.from_mapping(
        {
            "name": "any",
            "parameters": {
                "batch_size": {"type": "categorical", "choices": values},
                "lora_rank": {"type": "int", "low": 4, "high": 4 + max(values)},
                "optimizer": {"type": "categorical", "choices": optimizers},
                "learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-2},
            },
        }
    )
    found = heaviest(space)
    assert found["batch_size"] == max(values) and found["lora_rank"] == 4 + max(values)
    assert found["optimizer"] == "AdamW"


@pytest.mark.parametrize(
    ("name", "choices", "expected"),
    [
        ("gradient_checkpointing", [False, True], False),
        ("use_gradient_checkpointing", ["off", "on"], "off"),
        ("training.cpu_offload", [True, False], False),
        ("load_in_4bit", [False, True], False),
        ("quantization", ["nf4", "int8", "none"], "none"),
        ("quantization", ["nf4", "int8"], "int8"),
        ("base_weights", ["4bit", "8bit"], "8bit"),
        ("mixed_precision", [False, "fp16", "bf16"], False),  # how YAML reads a bare no
        ("mixed_precision", ["bf16", "no", "fp16"], "no"),
        ("precision", ["bf16", "fp32"], "fp32"),
        ("beta_dim", [16, 64], 64),
        ("timesteps_dim", [16, 64], 64),
        ("rated_width", [16, 64], 64),
        ("max_train_steps", [10, 20], 10),
        ("ema_decay", [0.0, 0.9], 0.9),  # at 0 there is no second copy
        ("optimizer.lr", [0.1, 0.2], 0.1),
        ("activation", ["relu", "none"], "relu"),  # no format among them: by their names, the first
    ],
)
def test_what_saves_memory_is_off_and_names_are_read_in_whole_words(name, choices, expected):
    parameters = {name: {"type": "categorical", "choices": choices}}
    assert heaviest(Space.from_mapping({"name": "any", "parameters": parameters}))[name] == expected


@given(st.permutations(["none", "fp32", "bf16", "int8", "nf4"]), st.integers(1, 5))
def test_of_number_formats_it_is_the_widest_whatever_their_order(formats, count):
    among = formats[:count]
    parameters = {"quantization": {"type": "categorical", "choices": among}}
    found = heaviest(Space.from_mapping({"name": "any", "parameters": parameters}))["quantization"]
    rank = {"none": 32, "fp32": 32, "bf16": 16, "int8": 8, "nf4": 4}
    assert rank[found] == max(rank[one] for one in among)
