"""The shipped space of phases with the real classifier of images and texts, on real Ray: drawn pictures, two phases."""

from __future__ import annotations

from typing import Any

import pytest

from search_spaces.space import Space
from tests.trainables.classification.makers import write_images
from tune_lora import phases, spec, store

pytestmark = pytest.mark.slow

PHASES = [
    {
        "name": "training",
        "parameters": ["text_encoder", "batch_size"],
        "n_trials": 2,
        "claims": [{"change": {"text_encoder": "char_cnn"}, "low": 0.0, "high": 0.2}],
    },
    {"name": "capacity", "parameters": ["differential_lr", "lr_backbone", "lr_new"], "n_trials": 2},
]
SMALL = {"max_epochs": 1, "image_size": 8, "widths": "4", "text_length": 8, "groupdro_warmup_epochs": 0}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_session) -> tuple[spec.StudySpec, phases.PhasesRecord]:
    folder = tmp_path_factory.mktemp("phases")
    document = {
        "name": "tiny",
        "trainer": "classifier",
        "data": {"path": str(write_images(folder / "images", rows=24)), "text": "text"},
        "space": "multimodal_phases",
        "fixed": SMALL,
        "search": {"seed": 3, "n_startup_trials": 2},
        "scheduler": {"name": "none"},
        "phases": PHASES,
        "ablation": {"seeds": 2},
        "results": str(folder / "results"),
        "tracking": {"wandb": "off"},
    }
    study = spec.from_mapping(document, "study.yaml")
    return study, phases.run(study)


def trials_of(study: spec.StudySpec, part: str) -> list[Any]:
    return list(store.load(study.folder / f"tiny-{part}").trials)


def test_every_part_is_trained_and_the_second_phase_starts_where_the_first_ended(finished) -> None:
    study, record = finished
    assert record.stop_reason == "all phases are done"
    first, second = record.phases
    assert (first.n_trials, second.n_trials) == (2, 2) and second.start == first.end
    start = Space.load("multimodal_phases").complete({})
    assert {name: first.start[name] for name in ("text_encoder", "batch_size", "differential_lr")} == {
        name: start[name] for name in ("text_encoder", "batch_size", "differential_lr")
    }
    for part in ("1-training", "1-training-ablation", "2-capacity", "2-capacity-ablation", "end"):
        trials = trials_of(study, part)
        assert trials and {trial.state for trial in trials} == {"complete"}
        for trial in trials:
            assert SMALL.items() <= trial.config.items()
            apart = {trial.metrics["acc_image"], trial.metrics["acc_text"]}
            assert trial.metrics["worst_group_acc"] == min(apart)


def test_rates_of_two_kinds_of_layers_are_there_where_they_differ_and_only_there(finished) -> None:
    study, _ = finished
    for part in ("2-capacity", "2-capacity-ablation", "end"):
        for trial in trials_of(study, part):
            differs = trial.config["differential_lr"]
            assert ({"lr_backbone", "lr_new"} <= trial.config.keys()) is differs
            assert ("lr_backbone" in trial.config) is differs


def test_the_claim_is_measured_with_the_seeds_of_its_phase(finished) -> None:
    study, record = finished
    (claimed,) = (gain for gain in record.phases[0].singles if gain.claimed)
    assert claimed.change == {"text_encoder": "char_cnn"} and claimed.claimed == (0.0, 0.2)
    trials = trials_of(study, "1-training-ablation")
    by_hand = {
        encoder: {
            trial.seed: trial.value
            for trial in trials
            if trial.config["text_encoder"] == encoder and trial.config["batch_size"] == 32
        }
        for encoder in ("mlp", "char_cnn")
    }
    assert len(by_hand["mlp"]) == len(by_hand["char_cnn"]) == 2
    mean = sum(by_hand["char_cnn"][seed] - value for seed, value in by_hand["mlp"].items()) / 2
    assert claimed.measured.mean == pytest.approx(mean)


def test_the_end_stands_beside_the_start_and_the_references_of_the_space(finished) -> None:
    study, record = finished
    assert record.values.keys() >= {"start", "baseline", "groupdro"}
    assert all(len(values) == 2 for values in record.values.values())
    (robust,) = {
        trial.config["groupdro_gamma"] for trial in trials_of(study, "end") if trial.config["groupdro_enabled"]
    }
    assert robust == 0.9
