"""What raters like is learnt where it shows in the metrics, and refused where it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.linear_model import Ridge

from tests.tune_lora import rated
from trainables.evaluation import Measures, ScoreWeights, Targets, score
from trainables.preference import Preference, Term
from tune_lora import build, spec, store, taste, taste_file
from tune_lora.errors import InputError, InputErrors
from tune_lora.preferences import Judgement
from tune_lora.records import StudyRecord
from tune_lora.spec import StudySpec


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rated.study(tmp_path_factory.mktemp("results") / "milo", 14)


@pytest.fixture(scope="module")
def record(study: Path) -> StudyRecord:
    return store.load(study)


def said(record: StudyRecord, judged: list[Judgement]) -> StudyRecord:
    lines = tuple(
        {
            "id": str(at),
            "at": f"{at:04d}",
            "rater": one.rater,
            "left": one.left,
            "right": one.right,
            "choice": one.choice,
        }
        for at, one in enumerate(judged)
    )
    return replace(record, ratings=lines)


def liking_identity(record: StudyRecord, pairs: int = 60, seed: int = 0) -> StudyRecord:
    return said(record, rated.judged([40 * trial.metrics["identity"] for trial in record.trials], pairs, seed))


def _refusal(record: StudyRecord, seed: int) -> str:
    """What is said of answers that have nothing to do with any metric; empty where something is learnt of them."""
    worth = list(np.random.default_rng(seed).normal(0, 2, len(record.trials)))
    try:
        taste.learn(said(record, rated.judged(worth, 60, seed)))
    except InputError as error:
        return str(error)
    return ""


def keep(folder: Path, of: StudyRecord) -> None:
    store.load_study(folder).set_user_attr(f"{store.RATINGS_PREFIX}anna", list(of.ratings))


class TestLearning:
    def test_a_planted_taste_is_found(self, record: StudyRecord) -> None:
        found = taste.learn(liking_identity(record))
        weights = {name: term["weight"] for name, term in found.terms.items()}
        assert max(weights, key=lambda name: abs(weights[name])) == "identity"
        assert weights["identity"] > 0.5
        assert found.rank > 0.6 and found.chance <= 0.01

    def test_it_foretells_trials_that_nobody_judged(self, record: StudyRecord) -> None:
        """Of two trials that were left out of the rating the one is predicted to be liked that would have been."""
        worth = [40 * trial.metrics["identity"] for trial in record.trials]
        seen = [number for number in range(14) if number not in (4, 10)]
        section = taste.section(taste.learn(said(record, rated.judged(worth, 60, among=seen))))
        learnt = spec.from_mapping(_given() | {"objective": {"preference": section}}, "test").objective.preference
        assert learnt is not None
        worse, better = (learnt.learnt().of(record.trials[number].metrics) for number in (4, 10))
        assert 0 < worse < better < 1

    def test_a_taste_that_does_not_show_is_refused(self, record: StudyRecord) -> None:
        mistakes = [_refusal(record, seed) for seed in range(20)]
        refused = [mistake for mistake in mistakes if mistake]
        assert len(refused) >= 17, "one in twenty may look as if it did"
        assert all("does not show in the metrics" in mistake for mistake in refused)

    def test_without_ratings_there_is_nothing_to_learn(self, record: StudyRecord) -> None:
        with pytest.raises(InputError, match="nobody has rated it; `tune-lora rate`"):
            taste.learn(record)

    def test_too_few_trials_are_refused(self, record: StudyRecord) -> None:
        with pytest.raises(InputError, match=r"3 rated trials have metrics of images; must be 8 or more"):
            taste.learn(said(record, rated.judged([0.0, 1.0, 2.0], 20)))

    def test_it_says_where_it_is_from(self, record: StudyRecord) -> None:
        found = taste.learn(liking_identity(record))
        assert found.provenance.startswith("study milo: 60 pairs of 14 trials, judged by anna; ")
        assert f"rank correlation of {found.rank:.2f}" in found.provenance


class TestRidge:
    def test_weights_are_those_of_scikit_learn(self) -> None:
        draw = np.random.default_rng(0)
        table, scores = draw.normal(size=(12, 5)), draw.normal(size=12)
        fitted = taste._Ridge(table)
        pull = taste._PULLS[int(fitted.errors(scores[:, None])[:, 0].argmin())]
        standard = (table - table.mean(axis=0)) / table.std(axis=0)
        assert fitted.weights(scores) == pytest.approx(Ridge(alpha=pull).fit(standard, scores).coef_)

    def test_errors_are_those_of_leaving_out_one_by_one(self) -> None:
        draw = np.random.default_rng(1)
        table, scores = draw.normal(size=(9, 3)), draw.normal(size=9)
        standard = (table - table.mean(axis=0)) / table.std(axis=0)
        found = taste._Ridge(table).errors(scores[:, None])[:, 0]
        for pull, error in zip(taste._PULLS, found, strict=True):
            missed = []
            for row in range(9):
                others = np.arange(9) != row
                fitted = Ridge(alpha=pull).fit(standard[others] - 0.0, scores[others])
                missed.append(scores[row] - fitted.predict(standard[[row]])[0])
            # The mean of the others is not that of all, which moves both a little where few are left.
            assert error == pytest.approx(np.mean(np.square(missed)), rel=0.05)

    def test_more_metrics_than_trials_are_no_trouble(self) -> None:
        draw = np.random.default_rng(2)
        rank, chance = taste.foresight(draw.normal(size=(8, 12)), draw.normal(size=8))
        assert -1 <= rank <= 1 and 0 < chance <= 1

    def test_luck_is_called_luck(self) -> None:
        """Of scores that have nothing to do with the metrics about one in twenty passes."""
        draw = np.random.default_rng(3)
        passed = [
            taste.foresight(draw.normal(size=(12, 6)), draw.normal(size=12))[1] <= taste.CHANCE for _ in range(60)
        ]
        assert sum(passed) <= 8


class TestTerm:
    def test_beyond_what_was_judged_nothing_is_promised(self) -> None:
        learnt = Preference({"identity": Term(2.0, 0.5, 0.1, 0.4, 0.7)})
        assert learnt.of({"identity": 0.5}) == 0.5
        assert learnt.of({"identity": 0.6}) < learnt.of({"identity": 0.7}) == learnt.of({"identity": 5.0})
        assert learnt.of({"identity": -9.0}) == learnt.of({"identity": 0.4}) < 0.5

    def test_a_metric_that_was_not_measured_is_said(self) -> None:
        with pytest.raises(ValueError, match="learnt from identity, which was not measured"):
            Preference({"identity": Term(2.0, 0.5, 0.1, 0.4, 0.7)}).of({"failures": 0.0})

    def test_what_is_liked_has_the_lower_score(self) -> None:
        weights = ScoreWeights.of({"preference": 0.5})
        scores = [
            score(Measures(0.5, 0.0, 0.2, 0.0, 0.4, 0.4, preference=liked), Targets(), weights).total
            for liked in (0.9, 0.2)
        ]
        assert scores == pytest.approx([0.05, 0.4])
        with pytest.raises(ValueError, match="preference has a weight and was not measured"):
            score(Measures(0.5, 0.0, 0.2, 0.0, 0.4, 0.4), Targets(), weights)


def _given() -> dict[str, object]:
    return {"name": "next", "dataset": {"path": "demo-character"}, "space": "lora_tiny"}


class TestFile:
    def test_a_new_file_is_the_study_with_what_is_liked(self, tmp_path: Path, study: Path, record: StudyRecord) -> None:
        keep(study, liking_identity(record))
        target = tmp_path / "next.yaml"
        lines = taste_file.write(study, target, 0.3)
        assert "more identity" in lines[0] and lines[-1].endswith(f"tune-lora run {target}")
        asked = spec.load(target)
        assert asked.name == "milo-liked"
        assert asked.objective.weights == {"preference": 0.3}
        assert asked.objective.preference is not None
        assert "60 pairs of 14 trials" in asked.objective.preference.learnt_from
        ready = build.plan(asked)
        assert ready.trainer.evaluation.preference.terms["identity"].weight > 0.5  # type: ignore[attr-defined]

    def test_a_file_that_is_there_keeps_everything_else(self, tmp_path: Path, study: Path, record: StudyRecord) -> None:
        keep(study, liking_identity(record))
        target = tmp_path / "next.yaml"
        text = (
            "# narrowed by hand\nname: second\ndataset: {path: demo-character}\nspace: lora_tiny  # the tiny one\n"
            "objective:\n  weights: {identity: 0.5}  # likeness first\n"
        )
        target.write_text(text)
        taste_file.write(study, target, 0.2)
        written = target.read_text()
        for comment in ("# narrowed by hand", "# the tiny one", "# likeness first"):
            assert comment in written
        asked = spec.load(target)
        assert asked.name == "second" and asked.objective.weights == {"identity": 0.5, "preference": 0.2}
        taste_file.write(study, target, 0.4)
        assert spec.load(target).objective.weights["preference"] == 0.4

    def test_a_file_with_a_mistake_stays_as_it_is(self, tmp_path: Path, study: Path, record: StudyRecord) -> None:
        keep(study, liking_identity(record))
        target = tmp_path / "next.yaml"
        target.write_text("name: x\nspaace: lora_tiny\n")
        with pytest.raises(InputErrors, match="spaace"):
            taste_file.write(study, target, 0.2)
        assert target.read_text() == "name: x\nspaace: lora_tiny\n"

    def test_a_study_without_pictures_is_refused(self, tmp_path: Path, study: Path, record: StudyRecord) -> None:
        keep(study, liking_identity(record))
        target = tmp_path / "next.yaml"
        target.write_text("name: x\ntrainer: curve\nspace: lora_tiny\n")
        with pytest.raises(InputError, match="trains with curve; must be a study of diffusion_lora"):
            taste_file.write(study, target, 0.2)


class TestSpec:
    TERM = {"weight": 1.0, "mean": 0.5, "scale": 0.1, "low": 0.4, "high": 0.7}  # noqa: RUF012 - read only

    def spec(self, **objective: object) -> StudySpec:
        return spec.from_mapping(_given() | {"objective": objective}, "study.yaml")

    def test_a_weight_without_what_was_learnt_is_refused(self) -> None:
        with pytest.raises(InputErrors, match=r"weights\.preference: got a weight without objective\.preference"):
            self.spec(weights={"preference": 0.3})

    def test_it_may_be_an_objective_of_its_own(self) -> None:
        asked = self.spec(metric="preference", direction="maximize", preference={"metrics": {"identity": self.TERM}})
        assert build.plan(asked).spec.objective.metric == "preference"

    def test_an_objective_that_nobody_measures_is_refused(self) -> None:
        with pytest.raises(InputErrors, match=r"objective.metric: got 'preference'"):
            build.plan(self.spec(metric="preference", direction="maximize"))

    @pytest.mark.parametrize(
        ("terms", "why"),
        [
            ({}, "got none; must be some of identity"),
            ({"charm": TERM}, "unknown metric 'charm'"),
            ({"identity": {**TERM, "scale": 0}}, "scale"),
            ({"identity": {**TERM, "weight": float("nan")}}, "weight"),
        ],
    )
    def test_terms_that_are_none_are_refused(self, terms: dict[str, object], why: str) -> None:
        with pytest.raises(InputErrors, match=why):
            self.spec(weights={"preference": 0.3}, preference={"metrics": terms})

    def test_it_reads_back_to_the_same(self) -> None:
        asked = self.spec(weights={"preference": 0.3}, preference={"metrics": {"identity": self.TERM}})
        written = yaml.safe_load(yaml.safe_dump(asked.as_mapping()))
        assert spec.from_mapping(written, "study.yaml") == asked

    def test_a_study_without_says_nothing_of_it(self) -> None:
        assert "preference" not in self.spec().as_mapping()["objective"]
