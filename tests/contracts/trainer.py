"""What every trainer promises. Each implementation subclasses this and says how it is made."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest

from trainables.protocol import Report, Trainer, TrialContext


class TrainerContract:
    """Subclasses give `trainer` and `params` (a short, valid configuration), and name the metrics of the machine
    (`by_clock`): those differ from run to run."""

    tolerance = 1e-6
    by_clock: frozenset[str] = frozenset()

    def assert_same(self, first: Report, second: Report) -> None:
        """Both reports measured the same things, and found the same where that is not the clock's."""
        assert first.metrics.keys() == second.metrics.keys()
        expected = {name: value for name, value in first.metrics.items() if name not in self.by_clock}
        found = {name: value for name, value in second.metrics.items() if name not in self.by_clock}
        assert found == pytest.approx(expected, rel=self.tolerance)

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

    def test_budgets_rise_to_the_horizon_and_only_the_last_report_is_final(self, trainer, params, reports):
        budgets = [report.budget for report in reports]
        assert budgets == sorted(set(budgets))
        assert budgets[0] >= 1 and budgets[-1] == trainer.horizon(params)
        assert [report.final for report in reports] == [False] * (len(reports) - 1) + [True]

    def test_there_is_a_report_wherever_somebody_decides(self, trainer, params, context):
        wanted = frozenset(range(1, trainer.horizon(params) + 1))
        asked = dataclasses.replace(context, decide_at=wanted)
        assert wanted <= {report.budget for report in trainer.run(asked)}

    def test_metrics_are_finite_numbers(self, reports):
        values = [value for report in reports for value in report.metrics.values()]
        assert values and all(abs(value) < 1e9 for value in values)  # false for NaN and infinity as well

    def test_the_same_seed_gives_the_same_trial(self, trainer, context, reports):
        again = list(trainer.run(context))
        for first, second in zip(reports, again, strict=True):
            self.assert_same(first, second)

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
            self.assert_same(first, second)

    def test_a_trial_stopped_early_leaves_the_next_one_untouched(self, trainer, context, reports):
        stopped = trainer.run(context)
        next(stopped)
        stopped.close()
        again = list(trainer.run(context))
        self.assert_same(reports[-1], again[-1])

    def test_it_travels_to_a_worker(self, trainer, params):
        assert pickle.loads(pickle.dumps(trainer)).horizon(params) == trainer.horizon(params)

    def test_a_good_configuration_has_nothing_wrong_and_an_empty_one_has(self, trainer, params):
        assert trainer.check(params) == []
        assert trainer.check({}) != []
