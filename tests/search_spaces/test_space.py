"""Spaces that people write: what is read, and that every mistake is one clear line at its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from search_spaces.feasible import feasible_sampler
from search_spaces.space import Space
from tune_lora.errors import InputError, InputErrors


def mapping(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "name": "mine",
        "parameters": {
            "lr": {"type": "loguniform", "low": "1e-5", "high": 1e-2},
            "dim": {"type": "categorical", "choices": [8, 16]},
            "epochs": {"type": "int", "low": 2, "high": 10, "step": 2, "default": 4},
        },
    }
    return base | changes


def mistakes(**changes: Any) -> tuple[str, ...]:
    with pytest.raises(InputErrors) as error:
        Space.from_mapping(mapping(**changes))
    assert all("\n" not in line for line in error.value.mistakes)
    return error.value.mistakes


def parameter(**settings: Any) -> dict[str, Any]:
    return {"parameters": {"lr": settings}}


@pytest.mark.parametrize(
    ("changes", "place", "said"),
    [
        (parameter(type="uniform", low=2, high=1), "space.parameters.lr.low", "upside down"),
        (parameter(type="uniform", low=1), "space.parameters.lr.high", "is missing"),
        (parameter(type="uniform", low="a", high=1), "space.parameters.lr.low", "got 'a', must be a number"),
        (parameter(type="uniform", low=float("nan"), high=1), "space.parameters.lr.low", "must be a number"),
        (parameter(type="loguniform", low=0, high=1), "space.parameters.lr.low", "above 0"),
        (parameter(type="int", low=1.5, high=3), "space.parameters.lr.low", "whole number"),
        (parameter(type="unifrom", low=1, high=3), "space.parameters.lr.type", "did you mean 'uniform'?"),
        (parameter(type="uniform", low=1, high=3, hihg=2), "space.parameters.lr", "did you mean 'high'?"),
        (parameter(type="uniform", low=0.25, high=0.92, step=0.05), "space.parameters.lr.high", "0.90 or 0.95"),
        (parameter(type="uniform", low=0, high=1, default=2), "space.parameters.lr.default", "got 2"),
        (
            parameter(type="uniform", low=0, high=1, when="dmi > 1"),
            "space.parameters.lr.when",
            "unknown variable 'dmi'",
        ),
        (parameter(type="uniform", low=0, high=1, when="lr > 1"), "space.parameters.lr.when", "depends on itself"),
        (parameter(type="categorical", choices=[]), "space.parameters.lr.choices", "at least one"),
        (parameter(type="categorical", choices=["a", "a"]), "space.parameters.lr.choices.1", "duplicate"),
        (parameter(type="categorical", choices=[[1]]), "space.parameters.lr.choices.0", "must be a text"),
        ({"parameters": {}}, "space.parameters", "at least one"),
        ({"paramters": {}}, "space", "did you mean 'parameters'?"),
        ({"n_trials": 0}, "space.n_trials", "whole number from 1"),
        ({"derived": {"a": "dmi * 2"}}, "space.derived.a", "did you mean 'dim'?"),
        ({"derived": {"a": "b", "b": "a"}}, "space.derived", "go round"),
        ({"derived": {"dim": "2"}}, "space.derived.dim", "duplicate: also in parameters"),
        (
            {"constraints": [{"name": "r", "rule": "dimm > 2", "reason": "x"}]},
            "space.constraints.r.rule",
            "did you mean 'dim'?",
        ),
        (
            {"constraints": [{"name": "r", "rule": "dim >", "reason": "x"}]},
            "space.constraints.r.rule",
            "not an expression",
        ),
        ({"constraints": [{"name": "r", "rule": "dim > 2"}]}, "space.constraints.r.reason", "is missing"),
        ({"constraints": [{"name": "r", "reason": "x"}]}, "space.constraints.r", "either `rule`"),
        ({"constraints": [{"rule": "dim > 2", "reason": "x"}]}, "space.constraints.0", "has no name"),
        (
            {"constraints": [{"name": "r", "rule": "dim > 'a'", "reason": "x"}]},
            "space.constraints",
            "cannot be evaluated",
        ),
        (
            {"constraints": [{"name": "r", "rule": "dim > 2", "reason": "x"}] * 2},
            "space.constraints.r",
            "duplicate name",
        ),
        ({"presets": {"p": {"parameters": {"dmi": {}}}}}, "space.presets.p.parameters", "did you mean 'dim'?"),
        ({"presets": {"p": {"without": ["x"]}}}, "space.presets.p.without", "unknown constraint 'x'"),
        ({"priors": {"p": {"params": {"dim": 8}}}}, "space.priors.p.params", "lr is not set and has no default"),
        ({"priors": {"p": {"params": {"dmi": 8}}}}, "space.priors.p.params", "did you mean 'dim'?"),
        (
            {"observations": [{"name": "o", "params": {"dim": 8}, "value": "good"}]},
            "space.observations.o.value",
            "a number",
        ),
        ({"stratify": ["dmi"]}, "space.stratify", "did you mean 'dim'?"),
    ],
)
def test_a_mistake_is_one_line_at_its_place(changes: dict, place: str, said: str) -> None:
    found = mistakes(**changes)
    assert any(line.startswith(f"{place}: ") and said in line for line in found), found


def test_all_mistakes_come_in_one_pass() -> None:
    found = mistakes(
        n_trials=-1,
        parameters={"lr": {"type": "uniform", "low": 2, "high": 1}, "dim": {"type": "nothing"}},
        derived={"twice": "2 * missing"},
    )
    assert len(found) == 4


def test_rules_that_clash_are_named_and_those_that_do_not_are_not() -> None:
    rules = [
        {"name": "large", "rule": "dim >= 16", "reason": "x"},
        {"name": "slow", "rule": "lr < 0.001", "reason": "x"},
        {"name": "small", "rule": "dim < 16", "reason": "x"},
    ]
    (line,) = mistakes(constraints=rules)
    assert "no configuration satisfies large, small together" in line


def test_a_narrow_window_of_a_continuous_parameter_is_found() -> None:
    window = {"name": "window", "rule": "0.00123 <= lr and lr <= 0.00124", "reason": "x"}
    space = Space.from_mapping(mapping(constraints=[window]))
    study = optuna.create_study(sampler=feasible_sampler(space, seed=3))
    assert all(0.00123 <= space.suggest(study.ask())["lr"] <= 0.00124 for _ in range(20))


def test_scientific_notation_is_a_number() -> None:
    assert Space.from_mapping(mapping()).parameters["lr"].domain.contains(1e-5)


def test_a_choice_that_looks_like_a_number_stays_a_text() -> None:
    space = Space.from_mapping(parameter(type="categorical", choices=["512_256", "1024_512_256"]))
    assert space.parameters["lr"].domain.values() == ("512_256", "1024_512_256")


def test_a_key_that_stands_twice_in_a_file_is_a_mistake_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("parameters:\n  lr: {type: uniform, low: 0, high: 1}\n  lr: {type: uniform, low: 0, high: 2}\n")
    with pytest.raises(InputErrors, match=r"space\.yaml:3: duplicate key 'lr'"):
        Space.load(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a: [", "space.yaml:"), (b"\xff\xfe\x00", "UTF-8"), (b"- 1", "must be a mapping"), (b"", "mapping")],
)
def test_files_that_are_no_space(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes(content)
    with pytest.raises(InputErrors, match=said):
        Space.load(str(path))


def test_an_unknown_name_comes_with_the_nearest_shipped_space() -> None:
    with pytest.raises(InputError, match="did you mean 'lora_v2_1'"):
        Space.load("lora_v21")
    with pytest.raises(InputError, match="does not exist"):
        Space.load("nowhere.yaml")


def test_a_parameter_exists_only_where_its_condition_holds() -> None:
    space = Space.from_mapping(
        {
            "parameters": {
                "eta": {"type": "categorical", "choices": [0.005, 0.01], "when": "enabled"},
                "enabled": {"type": "categorical", "choices": [True, False]},
            },
            "constraints": [{"name": "small", "rule": "eta < 0.01", "reason": "groups collapse"}],
        }
    )
    study = optuna.create_study(sampler=feasible_sampler(space, seed=1))
    draws = [space.suggest(study.ask()) for _ in range(40)]
    assert {draw["enabled"] for draw in draws} == {True, False}
    assert all(("eta" in draw) == draw["enabled"] for draw in draws)
    assert all(draw.get("eta", 0.005) == 0.005 for draw in draws)


def test_fixing_pins_a_parameter_and_refuses_a_derived_value() -> None:
    space = Space.load("lora_v2_1").with_fixed({"network_dim": 64, "max_grad_norm": 0.5, "precision": "fp32"})
    assert "network_dim" not in space.parameters
    config = space.resolve(space.defaults())
    assert (config["network_dim"], config["network_alpha"], config["max_grad_norm"]) == (64, 32, 0.5)
    with pytest.raises(InputError, match=r"fixed\.network_alpha: is derived"):
        space.with_fixed({"network_alpha": 64})


def test_what_was_given_wins_over_fixed_and_derived_values_and_overrides_win_over_all() -> None:
    space = Space.load("lora_v2_1")
    given = {"network_dim": 64, "network_alpha_ratio": 0.5, "network_alpha": 30, "max_grad_norm": 1.0}
    assert space.resolve(given)["network_alpha"] == 30
    assert space.resolve(given, {"max_grad_norm": 2.0})["max_grad_norm"] == 2.0


def test_examples_hold_every_choice() -> None:
    space = Space.load("lora_v1")
    seen = list(space.examples())
    for name, parameter_ in space.parameters.items():
        assert set(parameter_.domain.points()) <= {config[name] for config in seen}
