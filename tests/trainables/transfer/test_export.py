"""The final training and what it exports."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from trainables.protocol import TrialContext
from trainables.tables import Table
from trainables.transfer.export import predict
from trainables.transfer.rows import final_rows
from trainables.transfer.synthetic import SyntheticTransfer
from trainables.two_stage import TwoStage
from tune_lora.errors import InputError

SMALL = SyntheticTransfer(n_stage1=300, n_stage2=160)
PARAMS = {
    "encoder_hidden_dims": "32", "encoder_latent_dim": 16, "lr_pretrain": 3e-3, "stage1_epochs": 10,
    "stage1_batch_size": 64, "stage2_final_epochs": 40,
}  # fmt: skip
FORMS = [{}, {"freeze_encoder_stage2": False, "use_batchnorm": True}, {"stage2_sees_prediction": True}]


def table(x, names):
    return Table(x, tuple(names), None, None, None, (), np.arange(len(x)))


@pytest.mark.parametrize("more", FORMS)
def test_the_exported_model_predicts_what_was_measured_of_it(tmp_path, more):
    trainer = TwoStage(SMALL, final=True)
    *_, last = trainer.run(TrialContext(params=PARAMS | more, folder=tmp_path))
    data = SMALL.load()
    _, held = final_rows(trainer, data)
    told = predict(tmp_path, table(data.x[held], data.feature_names))
    assert np.abs(told.values - data.y[held]).mean() == pytest.approx(last.metrics["exp_mae"], rel=1e-4)
    accuracy = ((told.probabilities > 0.5) == (data.labels[held] == 1)).mean()
    assert accuracy == pytest.approx(last.metrics["sol_accuracy"])
    assert told.computed.shape == told.values.shape


def test_columns_are_found_by_name(tmp_path):
    list(TwoStage(SMALL, final=True).run(TrialContext(params=PARAMS, folder=tmp_path)))
    data = SMALL.load()
    straight = predict(tmp_path, table(data.x, data.feature_names))
    order = np.random.default_rng(0).permutation(data.x.shape[1])
    more = np.concatenate([np.full((len(data.x), 1), 7.0, np.float32), data.x[:, order]], axis=1)
    mixed = predict(tmp_path, table(more, ["another", *(data.feature_names[i] for i in order)]))
    np.testing.assert_array_equal(straight.values, mixed.values)
    with pytest.raises(InputError, match="lacks 1 of 32 features, first 'x0'"):
        predict(tmp_path, table(data.x[:, 1:], data.feature_names[1:]))


def test_it_learns_the_measured_value_of_new_rows(tmp_path):
    problem = SyntheticTransfer()
    list(TwoStage(problem, final=True).run(TrialContext(params=PARAMS | {"encoder_latent_dim": 64}, folder=tmp_path)))
    x, y, labels = problem.fresh(2000, seed=5)
    told = predict(tmp_path, table(x, problem.load().feature_names))
    assert np.abs(told.values - y).mean() < 0.8 * np.abs(y - np.median(y)).mean()
    assert roc_auc_score(labels, told.probabilities) > 0.75


def test_early_stopping_exports_the_kept_weights_and_the_budget_stands(tmp_path):
    params = PARAMS | {"stage2_final_patience": 2, "lr_finetune": 0.05}
    trainer = TwoStage(SMALL, final=True)
    found = list(trainer.run(TrialContext(params=params, folder=tmp_path, decide_at=frozenset({45}))))
    assert [report.budget for report in found][-2:] == [45, 50]
    written = json.loads((tmp_path / "model.json").read_text())["held_out_metrics"]
    assert written["score"] == found[-1].metrics["score"] == min(r.metrics.get("score", 99) for r in found)


def test_groups_stay_together_in_the_final_hold_out():
    data = SMALL.load()
    train, held = final_rows(TwoStage(SMALL), data)
    assert len(train) + len(held) == len(data.y)
    assert not {data.groups[row] for row in train} & {data.groups[row] for row in held}


def test_nothing_is_pickled_and_a_folder_without_a_model_is_one_line(tmp_path):
    list(TwoStage(SMALL, final=True).run(TrialContext(params=PARAMS, folder=tmp_path)))
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "model.json", "tensorboard"}
    with pytest.raises(InputError, match="holds no two-stage model"):
        predict(tmp_path / "none", table(np.zeros((1, 1), np.float32), ["a"]))


def test_a_trial_of_a_search_leaves_no_model(tmp_path):
    params = PARAMS | {"stage2_epochs": 2}
    list(TwoStage(SMALL).run(TrialContext(params=params, folder=tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["tensorboard"]


def test_without_labels_there_are_no_probabilities(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Unlabelled:
        def load(self):
            return dataclasses.replace(SMALL.load(), labels=None)

    list(TwoStage(Unlabelled(), final=True).run(TrialContext(params=PARAMS, folder=tmp_path)))
    data = SMALL.load()
    assert predict(tmp_path, table(data.x, data.feature_names)).probabilities is None
