"""What judgements come to: planted worths are found again, and little evidence is no certainty."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.tune_lora import rated
from tune_lora import preferences
from tune_lora.preferences import CHOICES, Choice, Judgement, fit, outcomes
from tune_lora.records import Objective, StudyRecord, TrialRecord

N = 6
judgements = st.lists(
    st.builds(
        lambda pair, choice: Judgement(pair[0], pair[1], choice),
        st.permutations(range(N)).map(lambda order: order[:2]),
        st.sampled_from(CHOICES),
    ),
    max_size=30,
)


def swapped(one: Judgement) -> Judgement:
    sides: dict[Choice, Choice] = {"left": "right", "right": "left", "tie": "tie"}
    return Judgement(one.right, one.left, sides[one.choice])


def record(scores: list[float], said: list[Judgement], **changes: object) -> StudyRecord:
    trials = tuple(TrialRecord(number, "complete", value, {}, {}) for number, value in enumerate(scores))
    entries = tuple(
        {"id": str(at), "rater": one.rater, "left": one.left, "right": one.right, "choice": one.choice}
        for at, one in enumerate(said)
    )
    return replace(StudyRecord("s", "minimize", trials, ratings=entries), **changes)  # type: ignore[arg-type] # by name


class TestModel:
    @given(judgements)
    @settings(max_examples=60)
    def test_it_is_finite_certain_of_nothing_and_centred(self, said: list[Judgement]) -> None:
        model = fit(range(N), said)
        assert np.isfinite(model.scores).all() and math.isfinite(model.tie)
        assert abs(model.scores.sum()) < 1e-6
        assert np.linalg.eigvalsh(model.covariance).min() > -1e-9
        assert (np.abs(model.scores) < 12).all()

    @given(judgements)
    @settings(max_examples=40)
    def test_sides_do_not_matter(self, said: list[Judgement]) -> None:
        assert fit(range(N), said).scores == pytest.approx(fit(range(N), map(swapped, said)).scores, abs=1e-5)

    @given(judgements)
    @settings(max_examples=40)
    def test_order_does_not_matter(self, said: list[Judgement]) -> None:
        assert fit(range(N), said).scores == pytest.approx(fit(range(N), said[::-1]).scores, abs=1e-5)

    @given(judgements, st.permutations(range(N)))
    @settings(max_examples=40)
    def test_a_win_more_raises_the_winner_over_the_loser(self, said: list[Judgement], order: list[int]) -> None:
        winner, loser = order[:2]
        before, after = fit(range(N), said), fit(range(N), [*said, Judgement(winner, loser, "left")])
        assert after.scores[winner] - after.scores[loser] > before.scores[winner] - before.scores[loser] - 1e-6

    def test_nothing_but_wins_is_finite_and_grows_with_evidence(self) -> None:
        once, often = (fit([0, 1], [Judgement(0, 1, "left")] * times).scores[0] for times in (1, 20))
        assert 0 < once < often < 5

    def test_one_answer_is_no_certainty(self) -> None:
        found = preferences.of(record([0.1, 0.2], [Judgement(0, 1, "left")]))
        assert found is not None
        assert found.likings[0].trial == 0
        assert found.likings[0].low < 0 < found.likings[0].high
        assert 0.5 < found.likings[0].chance < 0.95

    def test_nothing_but_ties_is_equality(self) -> None:
        model = fit([0, 1, 2], [Judgement(0, 1, "tie"), Judgement(1, 2, "tie"), Judgement(2, 0, "tie")] * 5)
        assert model.scores == pytest.approx([0, 0, 0], abs=1e-6)
        assert model.tie > 1

    def test_probabilities_are_davidson_s(self) -> None:
        left, right, tie = outcomes(np.array([1.0]), math.log(0.5))[0]
        a, b = math.exp(1.0), 1.0
        whole = a + b + 0.5 * math.sqrt(a * b)
        assert (left, right, tie) == pytest.approx((a / whole, b / whole, 0.5 * math.sqrt(a * b) / whole))

    def test_planted_worths_are_found_again(self) -> None:
        worth = [2.0, 1.2, 0.5, 0.0, -0.5, -1.2, -2.0, -2.5]
        model = fit(range(8), rated.judged(worth, 600))
        assert stats.spearmanr(model.scores, worth).statistic > 0.95
        assert model.scores == pytest.approx(np.array(worth) - np.mean(worth), abs=0.6)
        assert model.tie == pytest.approx(rated.TIE, abs=0.3)

    def test_intervals_hold_what_was_planted_at_their_rate(self) -> None:
        held = []
        for seed in range(60):
            worth = np.random.default_rng(seed).normal(0, 1.2, 8)
            worth -= worth.mean()
            said = rated.judged(list(worth), 40, seed)
            found = preferences.of(record([0.1 * n for n in range(8)], said))
            assert found is not None
            held += [one.low <= worth[one.trial] <= one.high for one in found.likings]
        assert len(held) > 400
        assert 0.85 <= np.mean(held) <= 0.97


class TestStudy:
    def test_without_ratings_there_is_nothing(self) -> None:
        assert preferences.of(record([0.1, 0.2], [])) is None

    def test_judgements_of_trials_that_are_not_there_do_not_count(self) -> None:
        assert preferences.of(record([0.1, 0.2], [Judgement(0, 7, "left")])) is None

    def test_what_is_no_judgement_does_not_count(self) -> None:
        wrong = ({"left": 0, "right": 0, "choice": "left"}, {"left": 0, "right": 1, "choice": "both"}, {})
        assert preferences.of(record([0.1, 0.2], [], ratings=wrong)) is None

    def test_a_low_score_that_is_liked_agrees_where_the_score_is_minimized(self) -> None:
        scores = [0.1 * number for number in range(10)]
        said = rated.judged([-value * 8 for value in scores], 150)
        agreed = preferences.of(record(scores, said))
        against = preferences.of(record(scores, said, direction="maximize"))
        assert agreed is not None and against is not None
        assert agreed.agreement.verdict == "agree" and against.agreement.verdict == "disagree"

    def test_with_several_objectives_the_place_counts(self) -> None:
        trials = tuple(TrialRecord(n, "complete", None, {}, {}, values=(0.1 * n, 0.1 * n)) for n in range(10))
        both = record([], [], trials=trials, objectives=(Objective("a"), Objective("b")))
        assert [preferences.goodness(both, trial) for trial in trials] == [-float(n) for n in range(10)]

    def test_counts_are_counts(self) -> None:
        said = [Judgement(0, 1, "left"), Judgement(1, 0, "tie"), Judgement(1, 2, "right"), Judgement(0, 2, "left")]
        found = preferences.of(record([0.1, 0.2, 0.3], said))
        assert found is not None
        one = found.liking(0)
        assert one is not None and (one.wins, one.losses, one.ties, one.seen) == (2, 0, 1, 3)
        assert found.liking(5) is None
        assert sum(one.chance for one in found.likings) == pytest.approx(1)


def test_importing_the_records_does_not_load_scipy(repository: Path) -> None:
    source = (repository / "tune_lora" / "records.py").read_text("utf-8")
    assert "preferences import" not in source
