"""What every trainer promises. Each implementation subclasses this and says how it is made."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from trainables.protocol import Report, Trainer, TrialContext


class TrainerContract:
    """Subclasses give `trainer` and `params` (a short, valid configuration)."""

    tolerance = 1e-6

    @pytest.fixture
    def trainer(self) -> Trainer:
        raise NotImplementedError

    @pytest.fixture
    def params(self) -> dict[str, Any]:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def shared(self) -> dict[str, Any]:
        """Kept between the trials of this class, as a worker keeps it."""
        return {}

    @pytest.fixture
    def context(self, params, tmp_path, shared) -> TrialContext:
        return TrialContext(params=params, folder=tmp_path, seed=3, shared=shared)

    @pytest.fixture
    def reports(self, trainer, context) -> list[Report]:
        return list(trainer.run(context))

    def test_there_is_one_report_for_each_budget_and_only_the_last_is_final(self, trainer, params, reports):
        assert [report.budget for report in reports] == list(range(1, trainer.horizon(params) + 1))
        assert [report.final for report in reports] == [False] * (len(reports) - 1) + [True]

    def test_metrics_are_finite_numbers(self, reports):
        values = [value for report in reports for value in report.metrics.values()]
        assert values and all(abs(value) < 1e9 for value in values)  # false for NaN and infinity as well

    def test_the_same_seed_gives_the_same_trial(self, trainer, context, reports):
        again = list(trainer.run(context))
        for first, second in zip(reports, again, strict=True):
            assert second.metrics == pytest.approx(dict(first.metrics), rel=self.tolerance)

    def test_a_restored_trial_continues_exactly(self, trainer, params, context, reports, tmp_path, shared):
        running = trainer.run(context)
        first = next(running)
        checkpoint = tmp_path / "saved"
        checkpoint.mkdir()
        first.save(checkpoint)
        running.close()
        restored = TrialContext(params=params, folder=tmp_path, seed=3, shared=shared, restore=checkpoint)
        rest = list(trainer.run(restored))
        assert [report.budget for report in rest] == [report.budget for report in reports[1:]]
        for first, second in zip(reports[1:], rest, strict=True):
            assert second.metrics == pytest.approx(dict(first.metrics), rel=self.tolerance)

    def test_a_trial_stopped_early_leaves_the_next_one_untouched(self, trainer, context, reports):
        stopped = trainer.run(context)
        next(stopped)
        stopped.close()
        again = list(trainer.run(context))
        assert again[-1].metrics == pytest.approx(dict(reports[-1].metrics), rel=self.tolerance)

    def test_it_travels_to_a_worker(self, trainer, params):
        assert pickle.loads(pickle.dumps(trainer)).horizon(params) == trainer.horizon(params)

    def test_a_good_configuration_has_nothing_wrong_and_an_empty_one_has(self, trainer, params):
        assert trainer.check(params) == []
        assert trainer.check({}) != []
