"""Results that mislead are let go, good ones are kept: the real TPE on a known function, and the pure verdict."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.feasible import feasible_sampler
from search_spaces.space import Space
from trainables.protocol import Cause
from tune_lora import store
from tune_lora.knowledge import Advice, Knowledge, Point, Source
from tune_lora.knowledge._guard import LEAST_OWN, MOST_OWN, Own, judge, predictor
from tune_lora.knowledge._scale import as_own, quantiles
from tune_lora.memory import Memory

SPACE = Space.load("lora_tiny")
finite = st.floats(-1e6, 1e6)


def score(params: dict[str, Any], noise: float = 0.0) -> float:
    rate = math.log(params["learning_rate"] / 3e-3)
    return 0.15 + 0.1 * rate**2 + 0.1 * (params["network_alpha_ratio"] - 0.6) ** 2 + noise


def own_trial(params: dict[str, Any], value: float | None, **more: Any) -> FrozenTrial:
    distributions = {name: SPACE.distributions()[name] for name in params}
    state = more.pop("state", TrialState.COMPLETE)
    return create_trial(state=state, value=value, params=params, distributions=distributions, **more)


def drawn(n: int, seed: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=feasible_sampler(SPACE, "random", seed=seed))
    return [SPACE.suggest(study.ask()) for _ in range(n)]


def carried(n: int, seed: int, *, turned: bool, values: Any = "ranks") -> Source:
    params = drawn(n, seed)
    found = [score(one) for one in params]
    if turned:
        found = [max(found) + min(found) - value for value in found]
    points = (Point(f"carried:e#{i}", one, value) for i, (one, value) in enumerate(zip(params, found, strict=True)))
    return Source("e", tuple(points), (), values)


def play(source: Source, seed: int, n: int) -> tuple[optuna.Study, list[float], int | None]:
    """A study with the real TPE: its storage, its scores, and after how many trials the source was let go."""
    stored, random, scores, gone = optuna.create_study(), np.random.default_rng(seed), [], None
    advice = Advice(stored, SPACE, Knowledge((), (source,)), "minimize")
    memory = Memory(SPACE, feasible_sampler(SPACE, "tpe", seed=seed), "minimize", advice)
    for number in range(n):
        memory.learn(stored.get_trials(deepcopy=False))
        if gone is None and store.LET_GO in stored.user_attrs:
            gone = number
        params, trial = memory.draw()
        memory.bind(number, trial)
        scores.append(score(params, 0.01 * random.normal()))
        stored.add_trial(own_trial(params, scores[-1]))
    return stored, scores, gone


def test_good_results_are_kept_and_reversed_ones_let_go_within_fifteen_trials() -> None:
    good = [play(carried(30, 100 + seed, turned=False), seed, 20)[2] for seed in range(6)]
    turned = [play(carried(30, 100 + seed, turned=True), seed, 16)[2] for seed in range(6)]
    assert good.count(None) >= 5
    assert sum(gone is not None and gone <= 15 for gone in turned) >= 5


def test_what_is_let_go_is_said_in_words_and_not_told_again_when_the_study_goes_on() -> None:
    source = carried(30, 100, turned=True)
    stored, _, gone = play(source, 0, 16)
    assert gone is not None
    assert stored.user_attrs[store.LET_GO]["e"].startswith("let go of the 30 results of e: over ")
    again = Advice(stored, SPACE, Knowledge((), (source,)), "minimize")
    assert again(stored.get_trials()) == []
    kept = Advice(stored, SPACE, Knowledge((), (source,)), "minimize", guarded=False)
    assert len(kept(stored.get_trials())) == 30


def test_a_few_early_trials_are_drawn_without_advice_unless_it_is_trusted() -> None:
    knowledge, trials = Knowledge((), (carried(30, 0, turned=False),)), [own_trial(x, score(x)) for x in drawn(20, 2)]
    for guarded, probes in ((True, 4), (False, 0)):
        advice = Advice(optuna.create_study(), SPACE, knowledge, "minimize", guarded=guarded)
        told = [len(advice(trials[:n])) for n in range(20)]
        assert (told.count(0), told.count(30)) == (probes, 20 - probes)
        assert told[0] == told[-1] == 30


def test_one_source_that_misleads_does_not_take_a_good_one_with_it() -> None:
    bad, good = carried(30, 7, turned=True), carried(30, 8, turned=False)
    bad, good = (Source(label, one.points, (), "ranks") for label, one in (("bad", bad), ("good", good)))
    stored = optuna.create_study()
    advice = Advice(stored, SPACE, Knowledge((), (bad, good)), "minimize")
    told = advice([own_trial(params, score(params)) for params in drawn(15, 9)])
    assert set(stored.user_attrs[store.LET_GO]) == {"bad"}
    assert [params for params, _ in told] == [point.params for point in good.points]


def test_good_results_make_the_first_trials_better() -> None:
    def first(source: Source) -> float:
        """Mean distance from the best score there is, over the first six trials."""
        return float(np.mean([np.mean(play(source, seed, 6)[1]) for seed in range(3)])) - 0.15

    assert first(carried(30, 3, turned=False)) < 0.6 * first(Source("e"))


# --- the verdict -----------------------------------------------------------------------------------------------------


@given(st.lists(finite, min_size=LEAST_OWN, max_size=MOST_OWN, unique=True))
def test_perfect_agreement_never_misleads_and_perfect_disagreement_always_does(values: list[float]) -> None:
    trials = [Own({"x": value}, final=value) for value in values]
    agrees, disagrees = judge(lambda one: one["x"], trials), judge(lambda one: -one["x"], trials)
    assert agrees is not None
    assert disagrees is not None
    assert (agrees.agreement, agrees.misleads) == (1.0, False)
    assert (disagrees.agreement, disagrees.misleads) == (-1.0, True)


@settings(max_examples=30)
@given(st.lists(st.tuples(finite, finite), min_size=LEAST_OWN, max_size=20), st.floats(0.1, 10))
def test_a_verdict_depends_on_the_order_of_results_alone(pairs: list[tuple[float, float]], factor: float) -> None:
    def verdict(change: Any) -> Any:
        return judge(lambda one: one["x"], [Own({"x": x}, final=change(y)) for x, y in pairs])

    places = {y: place for place, y in enumerate(sorted({y for _, y in pairs}))}
    assert verdict(lambda y: y) == verdict(lambda y: factor * places[y] - 3)


def test_predictions_that_say_nothing_are_rarely_called_misleading() -> None:
    random = np.random.default_rng(1)
    verdicts = [
        judge(lambda _: random.normal(), [Own({}, final=random.normal()) for _ in range(15)]) for _ in range(60)
    ]
    assert sum(verdict is not None and verdict.misleads for verdict in verdicts) <= 13  # a tenth, and chance


def test_there_is_no_verdict_on_few_trials_nor_on_trials_that_say_nothing() -> None:
    assert judge(lambda one: one["x"], [Own({"x": i}, final=float(i)) for i in range(LEAST_OWN - 1)]) is None
    assert judge(lambda one: one["x"], [Own({"x": i}) for i in range(30)]) is None


def test_trials_stopped_early_are_compared_at_the_rung_they_share() -> None:
    rung = [Own({"x": float(i)}, {2: float(-i)}) for i in range(8)]
    whole = [Own({"x": float(i)}, {2: float(-i), 6: float(i)}, final=float(i)) for i in range(8, 16)]
    verdict = judge(lambda one: one["x"], [*rung, *whole])
    assert verdict is not None
    pairs = 16 * 15 / 2
    among_whole = 8 * 7 / 2  # these agree at the end, all others disagree at the rung
    assert verdict.agreement == pytest.approx((among_whole - (pairs - among_whole)) / pairs)


def test_what_fails_where_the_best_was_promised_counts_against_the_promise() -> None:
    params = drawn(12, 4)
    stored = optuna.create_study()
    points = tuple(Point(f"p{i}", one, one["learning_rate"]) for i, one in enumerate(drawn(20, 5)))
    fails = {store.CAUSE: Cause.NAN_LOSS.value}
    by_rate = sorted(params, key=lambda one: float(one["learning_rate"]))
    trials = [own_trial(one, None, state=TrialState.FAIL, user_attrs=fails) for one in by_rate[:6]]
    trials += [own_trial(one, 1.0) for one in by_rate[6:]]
    Advice(stored, SPACE, Knowledge((), (Source("e", points),)), "minimize")(trials)
    assert "e" in stored.user_attrs[store.LET_GO]


def test_few_results_or_results_all_alike_predict_nothing() -> None:
    assert predictor(SPACE, drawn(4, 0), [0.1, 0.2, 0.3, 0.4]) is None
    assert predictor(SPACE, drawn(9, 0), [0.5] * 9) is None


# --- the scale -------------------------------------------------------------------------------------------------------

directions = st.sampled_from(["minimize", "maximize"])


@given(st.lists(finite, min_size=1, max_size=40), st.lists(finite, max_size=30), directions, directions)
def test_carried_results_keep_their_order_and_never_beat_what_was_measured(
    values: list[float], own: list[float], theirs: store.Direction, ours: store.Direction
) -> None:
    told = as_own(quantiles(values, theirs), own, ours)
    sign = {"minimize": 1, "maximize": -1}
    best_first = sorted(range(len(values)), key=lambda i: sign[theirs] * values[i])
    ordered = [sign[ours] * told[i] for i in best_first]
    assert all(later >= earlier - 1e-9 * (1 + abs(earlier)) for earlier, later in pairwise(ordered))
    if len(set(own)) > 1:
        margin = 1e-9 * (1 + max(map(abs, own)))
        assert min(own) - margin <= min(told)
        assert max(told) <= max(own) + margin


@given(st.lists(finite, min_size=2, max_size=30), st.lists(finite, max_size=1))
def test_before_there_are_own_results_the_order_is_told(values: list[float], own: list[float]) -> None:
    told = as_own(quantiles(values, "minimize"), own, "minimize")
    assert [told[i] for i in np.argsort(values, kind="stable")] == sorted(told)
    assert (len(set(told)) > 1) == (len(set(values)) > 1)


def test_values_of_a_comparable_study_are_told_as_they_are() -> None:
    source = carried(6, 0, turned=False, values="as_is")
    advice = Advice(optuna.create_study(), SPACE, Knowledge((), (source,)), "minimize")
    told = advice([own_trial(params, 100.0 + i) for i, params in enumerate(drawn(3, 1))])
    assert [value for _, value in told] == [point.value for point in source.points]


def test_memory_holds_each_trial_once_however_often_carried_results_move() -> None:
    stored = optuna.create_study()
    advice = Advice(stored, SPACE, Knowledge((), (carried(12, 0, turned=False),)), "minimize", guarded=False)
    memory = Memory(SPACE, feasible_sampler(SPACE, "tpe", seed=0), "minimize", advice)
    for number, params in enumerate(drawn(5, 2)):
        stored.add_trial(own_trial(params, float(number)))
        memory.learn(stored.get_trials(deepcopy=False))
    told = memory._study.get_trials(deepcopy=False)
    assert len(told) == 12 + 5
    assert [trial.value for trial in told[12:]] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert min(trial.value or 0.0 for trial in told[:12]) >= 0.0


def test_running_trials_stay_running_when_carried_results_move() -> None:
    stored = optuna.create_study()
    advice = Advice(stored, SPACE, Knowledge((), (carried(12, 0, turned=False),)), "minimize", guarded=False)
    memory = Memory(SPACE, feasible_sampler(SPACE, "tpe", seed=0), "minimize", advice)
    first, second = drawn(2, 2)
    running = own_trial(first, None, state=TrialState.RUNNING)
    memory.learn([running])
    done = own_trial(second, 0.3)
    done.number = 1
    memory.learn([running, done])
    own = memory._study.get_trials(deepcopy=False)[12:]
    assert [(trial.state, trial.params) for trial in own] == [
        (TrialState.RUNNING, first),
        (TrialState.COMPLETE, second),
    ]
