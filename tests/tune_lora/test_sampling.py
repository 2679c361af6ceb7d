"""What `tune-lora sample` prints: the real sampler without training."""

from __future__ import annotations

import pytest

from search_spaces.feasible import feasible_sampler
from search_spaces.space import Space
from tune_lora.sampling import suggestions


@pytest.mark.parametrize("name", ["lora_v1", "lora_v2_1", "lora_tiny"])
def test_every_suggestion_is_whole_and_breaks_no_rule(name: str) -> None:
    space = Space.load(name)
    configs = list(suggestions(space, 60, seed=42))
    assert len(configs) == 60
    assert all(space.violations(config) == [] for config in configs)
    assert all({*space.parameters, *space.derived, *space.fixed} == set(config) for config in configs)


def test_the_second_half_is_drawn_by_a_sampler_that_knows_results() -> None:
    space = Space.load("lora_v2_1")
    told, untold = (list(suggestions(space, 60, seed=42, told=told)) for told in (True, False))
    assert told[:30] == untold[:30]
    assert told[30:] != untold[30:]


def test_the_same_seed_suggests_the_same() -> None:
    space = Space.load("lora_tiny")
    assert list(suggestions(space, 20, seed=1)) == list(suggestions(space, 20, seed=1))
    assert list(suggestions(space, 20, seed=1)) != list(suggestions(space, 20, seed=2))


def test_whoever_lends_a_sampler_can_read_what_it_refused() -> None:
    space = Space.load("lora_v2_1")
    sampler = feasible_sampler(space, "random", seed=1)
    list(suggestions(space, 40, using=sampler))
    assert sum(sampler.rejected.values()) > 0
