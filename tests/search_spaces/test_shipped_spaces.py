"""The shipped spaces against the users' documents: ranges, rules, presets, references."""

from __future__ import annotations

import math

import pytest

from search_spaces.reading import shipped
from search_spaces.space import Space

SAFE = {
    "learning_rate": 8e-5,
    "text_encoder_lr": 5e-5,
    "network_dim": 128,
    "network_alpha_ratio": 0.5,
    "optimizer_type": "AdamW",
    "lr_scheduler": "cosine",
    "gradient_accumulation_steps": 2,
    "lr_warmup_steps": 150,
    "max_train_epochs": 16,
}


@pytest.fixture(scope="module")
def v21() -> Space:
    return Space.load("lora_v2_1")


def names(space: Space, **changes: object) -> set[str]:
    return {violation.name for violation in space.violations(space.resolve(SAFE | changes))}


def test_every_shipped_space_loads_with_its_presets_and_a_default_that_keeps_its_rules() -> None:
    found = shipped()
    assert {"lora_v1", "lora_v2_1", "lora_tiny"} <= found.keys()
    for name in ("lora_v1", "lora_v2_1", "lora_tiny"):
        space = Space.load(name)
        assert space.name == name
        assert set(space.defaults()) == set(space.parameters)
        assert space.violations(space.resolve(space.defaults())) == []
        for preset in space.presets:
            assert space.preset(preset).violations(space.resolve(space.defaults())) == []


def test_v1_has_the_documented_grid() -> None:
    space = Space.load("lora_v1")
    choices = {
        name: parameter.domain.values() for name, parameter in space.parameters.items() if parameter.domain.values()
    }
    assert choices["network_dim"] == (64, 96, 128, 192, 256)
    assert choices["network_alpha"] == (32, 48, 64, 96, 128)
    assert choices["optimizer_type"] == ("AdamW", "AdamW8bit", "Lion", "Adafactor")
    assert math.prod(len(values) for values in choices.values()) == 5 * 5 * 4 * 3 * 3 * 4
    rate = space.parameters["learning_rate"].domain
    assert (rate.low, rate.high, rate.log) == (5e-5, 2e-4, True)  # type: ignore[attr-defined]  # a Number
    assert [v.name for v in space.violations({"network_dim": 64, "network_alpha": 96})] == ["alpha_above_dim"]
    assert space.violations({"network_dim": 64, "network_alpha": 64}) == []


def test_v2_1_has_the_documented_ranges(v21: Space) -> None:
    shown = {name: parameter.domain.describe() for name, parameter in v21.parameters.items()}
    assert shown == {
        "learning_rate": "6e-05 .. 0.00012 (log)",
        "text_encoder_lr": "3e-05 .. 8e-05 (log)",
        "network_dim": "64, 128, 256",
        "network_alpha_ratio": "0.25 .. 0.9 (step 0.05)",
        "optimizer_type": "AdamW, AdamW8bit",
        "lr_scheduler": "cosine, cosine_with_restarts, polynomial",
        "gradient_accumulation_steps": "1, 2, 4",
        "lr_warmup_steps": "50, 100, 150, 200",
        "max_train_epochs": "12, 16, 20",
    }
    assert v21.n_trials == 20
    assert dict(v21.fixed) == {"max_grad_norm": 0.8, "min_snr_gamma": 5.0, "lr_scheduler_num_cycles": 2}


@pytest.mark.parametrize(
    ("dim", "ratio", "alpha"), [(64, 0.55, 35), (128, 0.85, 108), (256, 0.35, 89), (128, 0.75, 96), (64, 0.25, 16)]
)
def test_alpha_is_derived_from_rank_and_ratio(v21: Space, dim: int, ratio: float, alpha: int) -> None:
    assert v21.resolve({"network_dim": dim, "network_alpha_ratio": ratio})["network_alpha"] == alpha


@pytest.mark.parametrize(
    ("rule", "changes", "harmless"),
    [
        ("high_lr_8bit", {"learning_rate": 1.21e-4, "optimizer_type": "AdamW8bit"}, {"learning_rate": 1.2e-4}),
        ("alpha_equals_dim", {"network_alpha_ratio": 1.0}, {"network_alpha_ratio": 0.9}),
        ("high_dim_few_epochs", {"network_dim": 256, "max_train_epochs": 12}, {"network_dim": 255}),
        ("high_lr_low_warmup", {"learning_rate": 1.01e-4, "lr_warmup_steps": 50}, {"learning_rate": 1e-4}),
        (
            "high_lr_no_accumulation",
            {"learning_rate": 1.11e-4, "gradient_accumulation_steps": 1},
            {"learning_rate": 1.1e-4},
        ),
        ("high_alpha_safety", {"network_alpha_ratio": 0.75, "max_train_epochs": 12}, {"network_alpha_ratio": 0.7}),
        ("very_high_alpha_lr", {"network_alpha_ratio": 0.85, "learning_rate": 1.01e-4}, {"network_alpha_ratio": 0.8}),
        ("alpha_above_dim", {"network_alpha_ratio": 1.2}, {"network_alpha_ratio": 0.9}),
    ],
)
def test_each_of_the_eight_rules_fires_beyond_its_border_and_not_on_it(
    v21: Space, rule: str, changes: dict, harmless: dict
) -> None:
    assert rule in names(v21, **changes)
    assert rule not in names(v21, **changes | harmless)
    assert len(v21.constraints) == 8


def test_every_missing_safety_setting_is_named(v21: Space) -> None:
    worst = {
        "network_alpha_ratio": 0.8,
        "max_train_epochs": 12,
        "gradient_accumulation_steps": 1,
        "optimizer_type": "AdamW8bit",
        "lr_warmup_steps": 100,
    }
    (violation,) = v21.violations(v21.resolve(SAFE | worst))
    assert violation.name == "high_alpha_safety"
    assert len(violation.missing) == 4
    assert "max_train_epochs >= 16" in str(violation)
    assert violation.reason in str(violation)


def test_alpha_above_the_rank_is_allowed_only_with_all_of_its_conditions(v21: Space) -> None:
    met = {
        "network_alpha_ratio": 1.2,
        "learning_rate": 4e-5,
        "max_train_epochs": 21,
        "max_grad_norm": 0.5,
        "gradient_accumulation_steps": 4,
        "precision": "fp32",
        "nan_check_every_steps": 1,
    }
    assert names(v21, **met) == set()
    for name in met.keys() - {"network_alpha_ratio"}:
        without = {key: value for key, value in (SAFE | met).items() if key != name}
        broken = {violation.name for violation in v21.violations(v21.resolve(SAFE | v21.fixed | without))}
        assert "alpha_above_dim" in broken, name


@pytest.mark.parametrize(
    ("preset", "high"), [("conservative", 0.5), ("balanced", 0.75), ("aggressive", 0.9), ("extreme", 1.0)]
)
def test_presets_set_the_ratio(v21: Space, preset: str, high: float) -> None:
    space = v21.preset(preset)
    ratios = space.parameters["network_alpha_ratio"].domain.values()
    assert ratios is not None
    assert (ratios[0], ratios[-1]) == (0.25, high)
    equal = names(space, network_alpha_ratio=1.0)
    assert ("alpha_equals_dim" in equal) == (preset != "extreme")


def test_the_reference_trial_keeps_the_rules_and_lies_outside_the_ranges(v21: Space) -> None:
    (prior,) = v21.priors
    config = v21.resolve(v21.complete(prior.params))
    assert v21.violations(config) == []
    assert (config["network_alpha"], config["learning_rate"], config["max_train_epochs"]) == (96, 1.3e-4, 18)
    assert (config["max_grad_norm"], config["min_snr_gamma"], config["lr_scheduler_num_cycles"]) == (0.8, 5.0, 2)
    assert set(v21.within(prior.params)) == set(v21.parameters) - {
        "learning_rate",
        "max_train_epochs",
        "gradient_accumulation_steps",
    }


def test_past_trials_are_shown_without_values(v21: Space) -> None:
    assert [observation.name for observation in v21.observations] == ["trial_3", "trial_4", "trial_5"]
    assert all(observation.value is None for observation in v21.observations)
    assert v21.observations[1].params["network_alpha"] == 128
    assert "30-40% failed images" in v21.observations[1].note


def test_forty_percent_of_uniform_draws_from_v2_1_break_a_rule(v21: Space) -> None:
    import optuna

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    draws = [v21.resolve(v21.suggest(study.ask())) for _ in range(1000)]
    share = sum(bool(v21.violations(draw)) for draw in draws) / len(draws)
    assert 0.3 < share < 0.5


def test_alpha_of_the_miniature_never_rounds_to_nothing() -> None:
    space = Space.load("lora_tiny")
    for dim in (2, 4, 8, 16):
        alpha = space.resolve({"network_dim": dim, "network_alpha_ratio": 0.25})["network_alpha"]
        assert alpha == dim / 4


def test_llm_lora_has_the_documented_ranges_and_its_baseline() -> None:
    space = Space.load("llm_lora")
    shown = {name: parameter.domain.describe() for name, parameter in space.parameters.items()}
    assert shown == {
        "lora_rank": "8, 16, 32, 64",
        "lora_alpha": "16, 32, 64, 128",
        "learning_rate": "5e-05 .. 0.0005 (log)",
        "batch_size": "1, 2, 4",
    }
    assert (space.n_trials, space.fixed["epochs"], space.fixed["effective_batch_size"]) == (20, 1, 4)
    (prior,) = space.priors
    assert prior.name == "baseline"
    assert dict(prior.params) == {"lora_rank": 16, "lora_alpha": 32, "learning_rate": 2e-4, "batch_size": 1}
    assert space.violations(space.resolve({"lora_rank": 8, "lora_alpha": 128, "learning_rate": 5e-4})) == []
