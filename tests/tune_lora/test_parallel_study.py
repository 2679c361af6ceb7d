"""A study whose trials are each trained by two processes, on a real Ray session; and what may be asked for."""

import pytest

from trainables import demo_character
from tune_lora import spec as specs
from tune_lora import study
from tune_lora.errors import InputErrors


def mapping(folder, images, **resources):
    return {
        "name": "together",
        "dataset": {"path": str(images), "batch_size": 3},
        "space": "lora_tiny",
        "fixed": {"max_train_epochs": 1},
        "evaluation": {"n_images": 2, "steps": 2},
        "search": {"seed": 1},
        "budget": {"n_trials": 1, "plateau": None},
        "resources": {"cpu": 2, "concurrent": 1} | resources,
        "tracking": {"wandb": "off"},
        "results": str(folder),
    }


@pytest.mark.slow  # two minutes; the trainers' own tests hold two processes against one in the fast suite
def test_a_study_with_two_processes_a_trial_finds_what_one_with_single_processes_finds(
    tmp_path, monkeypatch, ray_session
):
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path / "cache"))
    images = tmp_path / "images"
    demo_character.write_dataset(images, count=12)
    losses = {}
    for processes in (1, 2):
        record = study.run(specs.from_mapping(mapping(tmp_path / str(processes), images, processes=processes), "test"))
        assert [trial.cause for trial in record.trials] == [None]
        losses[processes] = [trial.metrics["val_loss"] for trial in record.trials]
    assert losses[2] == pytest.approx(losses[1], rel=1e-3)


def test_more_processes_than_devices_are_refused(tmp_path):
    with pytest.raises(InputErrors) as caught:
        specs.from_mapping(mapping(tmp_path, tmp_path, gpu=2, processes=4), "test")
    assert any("processes: got 4 on 2 GPUs; must be at most one for each" in line for line in caught.value.mistakes)


def test_a_trial_on_several_gpus_is_trained_by_as_many_processes(tmp_path):
    assert specs.from_mapping(mapping(tmp_path, tmp_path, gpu=4), "test").resources.together == 4
    assert specs.from_mapping(mapping(tmp_path, tmp_path, gpu=0.5), "test").resources.together == 1
