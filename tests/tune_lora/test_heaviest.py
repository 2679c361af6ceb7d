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
