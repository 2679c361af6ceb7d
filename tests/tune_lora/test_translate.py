"""One past configuration in terms of another space: what is copied, computed, moved, and what is left out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.expressions import parse
from search_spaces.space import Space
from tune_lora.knowledge._translate import CannotCarry, translate

V1, V2 = Space.load("lora_v1"), Space.load("lora_v2_1")
OLD = {
    "learning_rate": 8e-5,
    "text_encoder_lr": 4e-5,
    "network_dim": 128,
    "network_alpha": 64,
    "optimizer_type": "AdamW",
    "lr_scheduler": "cosine",
    "gradient_accumulation_steps": 2,
    "max_train_epochs": 12,
}


def left_out(config: dict[str, Any], **settings: Any) -> str:
    with pytest.raises(CannotCarry) as caught:
        translate(config, V2, **settings)
    assert caught.value.reason
    return str(caught.value)


def test_an_absolute_alpha_becomes_a_ratio_by_itself() -> None:
    made = translate(OLD, V2)
    assert made.params["network_alpha_ratio"] == 0.5
    assert V2.resolve(made.params)["network_alpha"] == 64
    assert "network_alpha_ratio 0.5 from network_alpha 64" in made.notes


@given(st.sampled_from([64, 128, 256]), st.integers(5, 18))
def test_whatever_ratio_made_an_alpha_comes_back(dim: int, twentieths: int) -> None:
    ratio = twentieths / 20
    known = {
        "network_dim": dim,
        "network_alpha": V2.derived["network_alpha"]({"network_dim": dim, "network_alpha_ratio": ratio}),
    }
    space = Space.from_mapping(
        {
            "parameters": {name: V2.source["parameters"][name] for name in ("network_dim", "network_alpha_ratio")},
            "derived": V2.source["derived"],
        }
    )
    made = translate(known, space)
    assert space.resolve(made.params)["network_alpha"] == known["network_alpha"]


@given(st.floats(0.01, 100), st.floats(1e-3, 10))
def test_a_continuous_value_comes_back_from_what_was_derived(factor: float, value: float) -> None:
    space = Space.from_mapping(
        {
            "parameters": {
                "factor": {"type": "uniform", "low": 0.001, "high": 1000},
                "value": {"type": "loguniform", "low": 1e-3, "high": 10},
            },
            "derived": {"product": "factor * value"},
        }
    )
    made = translate({"factor": factor, "product": factor * value}, space, move=True)
    assert made.params["value"] == pytest.approx(value, rel=1e-6)


def test_the_map_goes_before_a_name_they_share() -> None:
    expressions = {"network_alpha_ratio": parse("network_alpha / network_dim + 0.1"), "lr_warmup_steps": parse("150")}
    made = translate(OLD | {"network_alpha_ratio": 0.3}, V2, expressions=expressions)
    assert made.params["network_alpha_ratio"] == 0.6
    assert made.params["lr_warmup_steps"] == 150


def test_what_is_missing_takes_the_earlier_default_then_this_spaces_and_says_so() -> None:
    config = {name: value for name, value in OLD.items() if name != "lr_scheduler"}
    made = translate(config, V2, defaults={"lr_scheduler": "polynomial"})
    assert made.params["lr_scheduler"] == "polynomial"
    assert made.params["lr_warmup_steps"] == V2.parameters["lr_warmup_steps"].default
    assert {"lr_scheduler polynomial by default", "lr_warmup_steps 100 by default"} <= set(made.notes)


def test_what_is_missing_and_has_no_default_leaves_the_point_out() -> None:
    space = Space.from_mapping({"parameters": {"lr": {"type": "uniform", "low": 0.0, "high": 1.0}}})
    with pytest.raises(CannotCarry, match="lr is not known"):
        translate({"other": 1}, space)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"learning_rate": 1.5e-4}, "learning_rate outside 6e-05 .. 0.00012 (log): learning_rate is 0.00015"),
        ({"network_dim": 96, "network_alpha": 48}, "network_dim outside 64, 128, 256: network_dim is 96"),
        ({"network_alpha": 16}, "network_alpha_ratio outside 0.25 .. 0.9 (step 0.05): network_alpha_ratio is 0.125"),
        ({"optimizer_type": "Lion"}, "optimizer_type outside AdamW, AdamW8bit: optimizer_type is Lion"),
        ({"network_dim": 256, "network_alpha": 128}, "breaks high_dim_few_epochs"),
    ],
)
def test_a_result_that_this_space_does_not_offer_is_left_out_with_its_reason(
    changed: dict[str, Any], reason: str
) -> None:
    assert left_out(OLD | changed).startswith(reason)


def test_a_reference_outside_a_range_is_moved_to_the_nearest_value_and_says_so() -> None:
    made = translate(OLD | {"learning_rate": 1.5e-4, "network_dim": 96, "network_alpha": 48}, V2, move=True)
    assert made.params["learning_rate"] == 1.2e-4
    assert made.params["network_dim"] == 64
    assert made.params["network_alpha_ratio"] == 0.5  # of the earlier trial's rank
    assert {"learning_rate 0.00015 -> 0.00012", "network_dim 96 -> 64"} <= set(made.notes)


def test_a_reference_with_a_choice_that_has_no_nearest_is_left_out() -> None:
    assert "near none of them" in left_out(OLD | {"optimizer_type": "Lion"}, move=True)


def test_a_result_between_two_steps_is_rounded_and_says_so() -> None:
    made = translate(OLD | {"network_alpha": 48}, V2)  # a ratio of 0.375
    assert made.params["network_alpha_ratio"] in (0.35, 0.4)
    assert any(note.startswith("network_alpha_ratio 0.375 -> ") for note in made.notes)


def test_a_setting_that_was_another_is_said() -> None:
    assert "max_grad_norm was 1, is 0.8 here" in translate(OLD | {"max_grad_norm": 1.0}, V2).notes


def test_a_parameter_that_does_not_exist_there_is_not_asked_for() -> None:
    space = Space.from_mapping(
        {
            "parameters": {
                "enabled": {"type": "categorical", "choices": [True, False]},
                "eta": {"type": "uniform", "low": 0.0, "high": 1.0, "when": "enabled"},
            }
        }
    )
    assert dict(translate({"enabled": False, "eta": 7.0}, space).params) == {"enabled": False}
    assert dict(translate({"enabled": True, "eta": 0.5}, space).params) == {"enabled": True, "eta": 0.5}


@given(st.data())
def test_whatever_is_carried_lies_within_the_space_and_breaks_no_rule(data: st.DataObject) -> None:
    config = {name: data.draw(st.sampled_from(one.domain.points()), name) for name, one in V1.parameters.items()}
    for move in (False, True):
        try:
            params = translate(V1.resolve(config), V2, move=move).params
        except CannotCarry:
            continue
        assert V2.within(params) == params
        assert params.keys() == V2.parameters.keys()
        assert V2.violations(V2.resolve(params)) == []
