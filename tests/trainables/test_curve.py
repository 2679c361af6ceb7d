"""The synthetic trainer keeps the contract and shows what it is for."""

import pytest

from tests.contracts.trainer import TrainerContract
from trainables.curve import Curve
from trainables.protocol import Cause, TrialContext, TrialFailure


class TestCurve(TrainerContract):
    @pytest.fixture
    def trainer(self):
        return Curve()

    @pytest.fixture
    def params(self):
        return {"learning_rate": 1e-3, "max_train_epochs": 4}


def test_a_rate_nearer_to_the_best_ends_lower(tmp_path):
    def final(rate):
        context = TrialContext(params={"learning_rate": rate}, folder=tmp_path)
        return list(Curve(noise=0).run(context))[-1].metrics["score"]

    assert final(1e-3) < final(2e-3) < final(1e-2)


def test_a_rate_in_the_failing_region_is_nan(tmp_path):
    context = TrialContext(params={"learning_rate": 1e-1}, folder=tmp_path)
    with pytest.raises(TrialFailure) as caught:
        list(Curve(nan_above=1e-2).run(context))
    assert caught.value.cause is Cause.NAN_LOSS
