"""What holds for every space: domains contain what they offer, suggestions keep the rules, resolving is stable."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search_spaces.domains import Categorical, Domain, Int, LogUniform, Uniform
from search_spaces.feasible import feasible_sampler
from search_spaces.lookahead import Lookahead, clashing
from search_spaces.space import Space
from tune_lora.errors import InputErrors


@st.composite
def domains(draw: st.DrawFn) -> Domain:
    low, steps = draw(st.integers(-50, 50)), draw(st.integers(0, 40))
    kind = draw(st.sampled_from(["categorical", "uniform", "stepped", "loguniform", "int"]))
    if kind == "categorical":
        return Categorical(tuple(draw(st.lists(st.sampled_from(["a", "b", 1, 2.5, None]), min_size=1, unique=True))))
    if kind == "stepped":
        return Uniform(low / 20, (low + steps) / 20, 0.05)
    if kind == "loguniform":
        return LogUniform(10.0 ** (low / 10), 10.0 ** ((low + steps) / 10))
    return Int(low, low + 3 * steps, 3) if kind == "int" else Uniform(float(low), float(low + steps))


@given(domains(), st.integers(0, 2**16))
def test_a_domain_contains_what_it_offers_and_what_optuna_draws_from_it(domain: Domain, seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    drawn = domain.suggest(study.ask(), "x")
    for value in (*domain.points(), *(domain.values() or ()), drawn):
        assert domain.contains(value)
        assert domain.contains(domain.snap(value))
        assert domain.snap(domain.snap(value)) == domain.snap(value)
    assert study.trials[0].distributions["x"] == domain.to_distribution()


@given(domains(), st.sampled_from(["z", True, 1e9, -1e9, float("nan"), "1"]))
def test_a_domain_does_not_contain_what_lies_outside(domain: Domain, value: Any) -> None:
    assert not domain.contains(value)


NAMES = ("a", "b", "c", "rate")


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    def comparison() -> str:
        name = draw(st.sampled_from(NAMES))
        border = draw(st.integers(0, 4)) if name != "rate" else draw(st.sampled_from([0.1, 0.3, 0.5, 0.9]))
        return (
            f"{name} {draw(st.sampled_from(['<', '<=', '>', '>=', '=='] if name != 'rate' else ['<', '>=']))} {border}"
        )

    if draw(st.booleans()):
        return {"rule": comparison()}
    return {"when": comparison(), "require": [comparison() for _ in range(draw(st.integers(1, 3)))]}


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    parameters: dict[str, Any] = {name: {"type": "categorical", "choices": [0, 1, 2, 3, 4]} for name in NAMES[:3]}
    parameters["rate"] = {"type": "uniform", "low": 0.0, "high": 1.0}
    listed = draw(st.lists(rules(), max_size=6))
    constraints = [{"name": f"rule{index}", "reason": "x", **rule} for index, rule in enumerate(listed)]
    try:
        return Space.from_mapping({"parameters": parameters, "constraints": constraints})
    except InputErrors as error:
        assert "no configuration satisfies" in str(error)  # noqa: PT017  # the only mistake such a space can have
        assume(False)
        raise


@settings(max_examples=60)
@given(spaces(), st.sampled_from(["tpe", "random"]), st.integers(0, 2**16))
def test_whatever_the_rules_no_suggestion_breaks_one(space: Space, sampler: str, seed: int) -> None:
    study = optuna.create_study(sampler=feasible_sampler(space, sampler, seed=seed, n_startup_trials=3))
    for _ in range(8):
        trial = study.ask()
        config = space.resolve(space.suggest(trial))
        assert space.violations(config) == []
        study.tell(trial, config["a"] - config["rate"])


@settings(max_examples=60)
@given(spaces(), st.data())
def test_the_lookahead_agrees_with_trying_everything(space: Space, data: st.DataObject) -> None:
    given_ = {
        name: data.draw(st.integers(0, 4)) for name in data.draw(st.lists(st.sampled_from(NAMES[:3]), unique=True))
    }
    grid = [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 0.95, 1.0]
    choices = [[given_[name]] if name in given_ else range(5) for name in NAMES[:3]]
    possible = any(
        not space.violations({"a": a, "b": b, "c": c, "rate": rate})
        for a in choices[0]
        for b in choices[1]
        for c in choices[2]
        for rate in grid
    )
    assert (Lookahead(space).obstacle(given_) is None) == possible


@given(st.lists(rules(), min_size=1, max_size=5))
def test_rules_named_as_clashing_do_clash_and_none_of_them_is_superfluous(listed: list[dict[str, Any]]) -> None:
    parameters: dict[str, Any] = {name: {"type": "categorical", "choices": [0, 1, 2, 3, 4]} for name in NAMES[:3]}
    parameters["rate"] = {"type": "uniform", "low": 0.0, "high": 1.0}
    constraints = [{"name": f"rule{index}", "reason": "x", **rule} for index, rule in enumerate(listed)]
    try:
        space = Space.from_mapping({"parameters": parameters, "constraints": constraints})
    except InputErrors as error:
        named = str(error).partition("satisfies ")[2].partition(" together")[0].split(", ")
        clash = [rule for rule in constraints if rule["name"] in named]
        with pytest.raises(InputErrors):
            Space.from_mapping({"parameters": parameters, "constraints": clash})
        for rule in clash:
            Space.from_mapping(
                {"parameters": parameters, "constraints": [other for other in clash if other is not rule]}
            )
    else:
        assert clashing(space) == []


@given(st.sampled_from(["lora_v1", "lora_v2_1", "lora_tiny"]), st.integers(0, 2**16))
def test_resolving_what_is_resolved_changes_nothing(name: str, seed: int) -> None:
    space = Space.load(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    config = space.resolve(space.suggest(study.ask()))
    assert space.resolve(config) == config
    assert {violation.name for violation in space.violations(config)} == {
        rule.name for rule in space.constraints if rule.excess(config) > 0
    }
