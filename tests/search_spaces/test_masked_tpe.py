"""TPE within a region: its density there, renormalised, however sure it is of what is forbidden."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import optuna
import pytest

from search_spaces.domains import Categorical, Domain, Uniform
from search_spaces.masked_tpe import MaskedTPE
from search_spaces.regions import Region


def drawn(domain: Domain, region: Region, scores: Any, n: int) -> list[Any]:
    """What TPE would draw next, `n` times, after forty trials."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(40):
        trial = study.ask()
        study.tell(trial, scores(domain.suggest(trial, "x")))
    sampler = MaskedTPE(seed=1, n_startup_trials=10, multivariate=False)
    trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
    return [sampler.sample_within(study, trial, "x", domain.to_distribution(), region) for _ in range(n)]


def test_numbers_come_from_the_region_only_and_most_from_where_it_is_best() -> None:
    domain = Uniform(0.0, 1.0)
    region = Region(domain, None, ((0.0, 0.1), (0.5, 0.7)))
    values = np.array(drawn(domain, region, lambda x: (x - 0.9) ** 2, 200))
    assert region.holds(values).all()
    assert np.mean(values >= 0.5) > 0.9


def test_a_sliver_far_from_what_it_likes_is_sampled_all_the_same() -> None:
    domain = Uniform(0.0, 1.0)
    region = Region(domain, None, ((0.0, 1e-6),))
    values = np.array(drawn(domain, region, lambda x: (x - 0.9) ** 2, 5))
    assert region.holds(values).all()


def test_choices_keep_their_order_of_merit() -> None:
    domain = Categorical(("best", "good", "bad", "worst"))
    region = Region(domain, ("best", "worst"))
    values = Counter(drawn(domain, region, domain.choices.index, 200))
    assert set(values) <= {"best", "worst"}
    assert values["best"] > 150


@pytest.mark.parametrize("choices", [("bad",), ("worst",)])
def test_the_last_open_choice_is_taken(choices: tuple[str, ...]) -> None:
    domain = Categorical(("best", "good", "bad", "worst"))
    assert set(drawn(domain, Region(domain, choices), domain.choices.index, 10)) == set(choices)
