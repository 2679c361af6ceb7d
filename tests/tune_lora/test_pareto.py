"""The geometry of several objectives, for all points."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_lora import pareto as geometry
from tune_lora.records import Objective, StudyRecord, TrialRecord, for_objective, pareto

Point = tuple[float, ...]
NUMBERS = st.integers(0, 9).map(float) | st.floats(0, 9)


def points(dimensions: int | None = None) -> st.SearchStrategy[list[Point]]:
    chosen = st.integers(2, 4) if dimensions is None else st.just(dimensions)
    return chosen.flatmap(lambda n: st.lists(st.tuples(*[NUMBERS] * n), min_size=1, max_size=14))


def dominates(one: Point, other: Point) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


@given(points())
def test_no_member_of_the_front_is_dominated_and_every_other_point_is(given_points: list[Point]) -> None:
    front = geometry.front(given_points)
    assert front == sorted(set(front)) and front
    for index, point in enumerate(given_points):
        beaten = any(dominates(other, point) for other in given_points)
        assert (index in front) != beaten


def study(values: list[Point], directions: tuple[str, ...]) -> StudyRecord:
    objectives = tuple(Objective(f"m{i}", direction) for i, direction in enumerate(directions))  # type: ignore[arg-type] # literals
    trials = tuple(TrialRecord(n, "complete", None, {}, {}, values=one) for n, one in enumerate(values))
    return StudyRecord("s", "minimize", trials, objectives=objectives)


@given(points(2), st.tuples(*[st.sampled_from(["minimize", "maximize"])] * 2))
def test_directions_turn_the_front_and_the_recommended_trial_is_on_it(
    values: list[Point], ways: tuple[str, ...]
) -> None:
    record = study(values, ways)
    signs = [1 if way == "minimize" else -1 for way in ways]
    turned = [tuple(sign * value for sign, value in zip(signs, point, strict=True)) for point in values]
    front = pareto(record)
    assert [trial.number for trial in front] == geometry.front(turned)
    assert record.best in front
    ranked = record.ranked()
    assert len(ranked) == len(values) and {t.number for t in ranked[: len(front)]} == {t.number for t in front}


def test_the_recommended_trial_is_the_fairest_trade_whatever_the_units() -> None:
    corners = [(0.1, 1000.0), (0.9, 10.0)]
    assert study([*corners, (0.2, 120.0), (0.5, 505.0)], ("minimize", "minimize")).best.number == 2  # type: ignore[union-attr] # there is one
    turned = study([(0.1, -1000.0), (0.9, -10.0), (0.2, -120.0)], ("minimize", "maximize"))
    assert turned.best is not None and turned.best.number == 2


@pytest.mark.parametrize("flat", [1e-308, 1e-188, 0.0])
def test_a_front_next_to_flat_still_has_a_recommended_trial(flat: float) -> None:
    best = study([(0.0, 2.0), (0.0, flat), (1.0, 0.0)], ("minimize", "minimize")).best
    assert best is not None and best.number == 1


def test_trials_that_did_not_complete_are_on_no_front() -> None:
    record = study([(1.0, 2.0)], ("minimize", "minimize"))
    pruned = TrialRecord(1, "pruned", None, {}, {})
    assert [
        t.number for t in pareto(StudyRecord("s", "minimize", (*record.trials, pruned), objectives=record.objectives))
    ] == [0]
    assert pareto(StudyRecord("s", "minimize", (TrialRecord(0, "complete", 0.1, {}, {}),))) == []


@given(points())
def test_the_hypervolume_is_what_the_points_dominate(given_points: list[Point]) -> None:
    """Against counting: coordinates in whole numbers, so that unit cells are dominated or not."""
    whole = [tuple(float(int(x)) for x in point) for point in given_points]
    corner = (10.0,) * len(whole[0])
    cells = np.array(list(itertools.product(range(10), repeat=len(corner))), dtype=float)
    covered = np.zeros(len(cells), dtype=bool)
    for point in whole:
        covered |= (cells >= np.array(point)).all(axis=1)
    assert geometry.hypervolume(whole, corner) == pytest.approx(covered.sum())


@given(points(), st.data())
def test_another_point_never_makes_it_smaller_and_the_front_alone_has_all_of_it(
    given_points: list[Point], data: st.DataObject
) -> None:
    corner = geometry.reference(given_points)
    volume = geometry.hypervolume(given_points, corner)
    front = [given_points[index] for index in geometry.front(given_points)]
    assert geometry.hypervolume(front, corner) == pytest.approx(volume)
    fewer = data.draw(st.lists(st.sampled_from(given_points)))
    assert geometry.hypervolume(fewer, corner) <= volume * (1 + 1e-12)
    assert all(x < at for point in front for x, at in zip(point, corner, strict=True))


def test_points_beyond_the_corner_cover_nothing() -> None:
    assert geometry.hypervolume([(1.0, 1.0), (5.0, 0.0)], (3.0, 3.0)) == pytest.approx(4.0)
    assert geometry.hypervolume([], (3.0, 3.0)) == 0


def test_one_training_that_exploded_does_not_move_the_corner() -> None:
    usual = [(float(i), float(10 - i)) for i in range(10)]
    assert geometry.reference([*usual, (1e9, 1e9)]) == pytest.approx(geometry.reference(usual), rel=0.2)
    assert geometry.reference([(1.0, 5.0), (5.0, 1.0), (0.5, 1e9)])[1] > 1e9  # on the front it counts


def test_one_objective_seen_alone_is_a_study_like_any_other() -> None:
    record = study([(0.3, 5.0), (0.1, 2.0), (0.2, 9.0)], ("minimize", "maximize"))
    alone = for_objective(record, 1)
    assert (alone.direction, alone.score_name, alone.has_several) == ("maximize", "m1", False)
    assert [trial.number for trial in alone.ranked()] == [2, 0, 1]
    assert alone.best is not None and alone.best.value == 9.0
