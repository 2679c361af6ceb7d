"""`resources.packing`: what it may be, and who is told at once that no two of its trials can share a base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.trainables.lora.text import small_model
from tests.tune_lora.studies import RATES
from trainables import demo_character
from tune_lora import build, overrides, packing_check, spec
from tune_lora.errors import InputErrors


def curves(**changes: Any) -> spec.StudySpec:
    return spec.from_mapping({"name": "curves", "trainer": "curve", "space": RATES} | changes, "test")


def packed(**resources: Any) -> spec.ResourcesSpec:
    return curves(resources=resources).resources


def mistake(**resources: Any) -> str:
    with pytest.raises(InputErrors) as caught:
        packed(**resources)
    (line,) = caught.value.mistakes
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("written", "means"),
    [("auto", "auto"), ("off", "off"), ("'off'", "off"), ("false", "off"), ("1", "off"), ("2", 2), ("64", 64)],
)
def test_what_a_file_may_say(written: str, means: int | str) -> None:
    read = packed(packing=yaml.safe_load(written))
    assert read.packing == means
    again = curves(resources=yaml.safe_load(yaml.safe_dump(read.model_dump(mode="json")))).resources
    assert again == read


def test_without_a_word_trials_train_one_by_one() -> None:
    assert packed().packing == "off"


@pytest.mark.parametrize("wrong", [0, -1, 65, 8.0, True, "on", "8", None, [8]])
def test_what_it_may_not_be_is_one_line(wrong: Any) -> None:
    line = mistake(packing=wrong)
    assert line == f"test: resources.packing: got {wrong!r}; must be auto, off or a whole number from 2 to 64"


@pytest.mark.parametrize("asked", ["auto", 8])
@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ({"gpu": "auto"}, "with gpu: auto, which lets trials share a device in another way; must be one of the two"),
        ({"memory": "auto"}, "with memory: auto, which"),
        ({"processes": 2}, "with 2 processes a trial; must be off"),
        ({"gpu": 4}, "with 4 GPUs a trial; must be off"),
        ({"mirror": "s3://bucket/studies"}, "with mirror; must be off"),
    ],
)
def test_what_cannot_stand_beside_it(asked: int | str, beside: dict[str, Any], said: str) -> None:
    assert mistake(packing=asked, **beside).startswith(f"test: resources: packing: got {asked} {said}")
    assert packed(packing="off", **beside).packing == "off"


@pytest.mark.parametrize("beside", [{"gpu": 0.5}, {"gpu": 1}, {"gpu": 0}, {"memory": 8}, {"processes": 1}, {"cpu": 4}])
def test_what_can(beside: dict[str, Any]) -> None:
    assert packed(packing=8, **beside).packing == 8


@pytest.mark.parametrize(("text", "means"), [("8", 8), ("auto", "auto"), ("off", "off")])
def test_it_can_be_set_on_the_command_line(text: str, means: int | str) -> None:
    assert overrides.for_run(curves(), [f"resources.packing={text}"]).resources.packing == means


def test_its_last_part_alone_is_said_to_mean_two_things() -> None:
    with pytest.raises(InputErrors, match=r"may be one of resources\.packing, text\.packing; must be a whole name"):
        overrides.for_run(curves(), ["packing=8"])


# --- of a study ------------------------------------------------------------------------------------------------------


def text_study(folder: Path, asked: int | str, **changes: Any) -> spec.StudySpec:
    data = small_model.write_data(folder / "questions.jsonl")
    given = {"name": "text", "trainer": "llm_lora", "base": "a/b", "text": {"path": str(data)}, "space": "llm_lora"}
    return spec.from_mapping(given | {"resources": {"packing": asked}} | changes, "test")


def refused(study: spec.StudySpec) -> list[str]:
    try:
        build.plan(study)
    except InputErrors as errors:
        return [line for line in errors.mistakes if line.startswith("resources.packing")]
    return []


def why_not(study: spec.StudySpec) -> list[str]:
    return list(packing_check.obstacles(study, build.space_of(study), build.trainer_of(study)))


def test_curves_can_share(tmp_path: Path) -> None:
    assert refused(curves(resources={"packing": 8})) == [] == why_not(curves(resources={"packing": "auto"}))


def test_a_trainer_that_trains_alone_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def train(params, trial):\n    yield {'score': 1.0}\n")
    mine = {"trainer": "custom", "trainable": f"{tmp_path / 'mine.py'}:train", "space": RATES}
    asked = spec.from_mapping({"name": "own", "resources": {"packing": 4}} | mine, "test")
    (line,) = refused(asked)
    assert line == (
        "resources.packing: got 4, but the trainer custom trains each trial by itself; must be off, or auto to share "
        "where that is possible"
    )
    automatic = spec.from_mapping({"name": "own", "resources": {"packing": "auto"}} | mine, "test")
    assert refused(automatic) == [] and why_not(automatic) == ["the trainer custom trains each trial by itself"]


@pytest.mark.parametrize("where", ["text", "fixed"])
def test_eight_bits_are_named(tmp_path: Path, where: str) -> None:
    data = small_model.write_data(tmp_path / "questions.jsonl")
    held = {"text": {"path": str(data), "quantization": "int8"}} if where == "text" else {}
    fixed = {"fixed": {"quantization": "int8"}} if where == "fixed" else {}
    (line,) = refused(text_study(tmp_path, 8, **held, **fixed))
    assert "quantization int8" in line
    assert why_not(text_study(tmp_path, "auto", **held, **fixed))
    assert refused(text_study(tmp_path, "auto", **held, **fixed)) == []


def test_what_only_some_trials_say_is_no_mistake(tmp_path: Path) -> None:
    other = {"fixed": {"quantization": "nf4"}, "text": {"path": str(tmp_path / "questions.jsonl")}}
    assert refused(text_study(tmp_path, 8, **other)) == []
    assert refused(text_study(tmp_path, 8, fixed={"gradient_checkpointing": True})) == []
    assert refused(text_study(tmp_path, 8, fixed={"lora_dropout": 0.1})) == []


def test_masks_that_would_be_drawn_twice_are_named(tmp_path: Path) -> None:
    images = tmp_path / "images"
    demo_character.write_dataset(images, count=4)
    asked = {
        "name": "images", "dataset": {"path": str(images)}, "space": "lora_tiny", "resources": {"packing": 8},
        "fixed": {"gradient_checkpointing": True, "network_dropout": 0.25},
    }  # fmt: skip
    (line,) = refused(spec.from_mapping(asked, "test"))
    assert "network_dropout 0.25 with gradient_checkpointing" in line
