"""The dataset section of a study file, and what the base predicts."""

from __future__ import annotations

import pytest

from trainables.lora.dataset_settings import NAMES
from tune_lora import build, spec, trainers
from tune_lora.dataset_spec import DatasetSpec
from tune_lora.errors import InputErrors

STUDY = {"name": "s", "space": "lora_tiny", "dataset": {"path": "demo-character"}}


def study(**dataset):
    return spec.from_mapping(STUDY | {"dataset": {"path": "demo-character", **dataset}}, "study.yaml")


def test_every_setting_of_a_dataset_can_be_given_in_the_study():
    assert set(DatasetSpec.model_fields) == NAMES | {"path", "held_out_share"}


def test_what_is_given_reaches_the_trainer_and_nothing_else_does():
    chosen = {"resolution": [96, 64], "enable_bucket": True, "bucket_reso_steps": 8, "flip": True}
    trainer = trainers.image_trainer(study(**chosen))
    assert trainer.dataset_settings == chosen | {"resolution": (96, 64)}
    assert trainers.image_trainer(study()).dataset_settings == {}


@pytest.mark.parametrize("resolution", [60, 8, 4096, True, "64", [64, 64, 64], [64, 60], []])
def test_a_wrong_resolution_is_one_clear_line(resolution):
    with pytest.raises(InputErrors) as caught:
        study(resolution=resolution)
    (line,) = caught.value.mistakes
    assert "dataset.resolution: got" in line and "must be a multiple of 8 from 16 to 2048, or a pair" in line


def test_a_square_may_be_written_as_one_number_or_two():
    assert study(resolution=64).dataset.settings() == {"resolution": 64}
    assert study(resolution=[64, 96]).dataset.settings() == {"resolution": (64, 96)}


def test_what_a_base_predicts_is_given_to_the_trainer():
    chosen = spec.from_mapping(STUDY | {"prediction_type": "v_prediction"}, "study.yaml")
    assert trainers.image_trainer(chosen).prediction_type == "v_prediction"
    with pytest.raises(InputErrors, match="prediction_type: got 'velocity'; must be 'epsilon' or 'v_prediction'"):
        spec.from_mapping(STUDY | {"prediction_type": "velocity"}, "study.yaml")


def test_zero_terminal_snr_needs_a_base_that_predicts_velocities():
    asking = STUDY | {"fixed": {"zero_terminal_snr": True}}
    with pytest.raises(InputErrors, match="zero_terminal_snr: got true with a base that predicts epsilon; must be"):
        build.plan(spec.from_mapping(asking, "study.yaml"))
    build.plan(spec.from_mapping(asking | {"prediction_type": "v_prediction"}, "study.yaml"))
