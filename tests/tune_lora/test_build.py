"""From a study to its parts: every mistake is found at once, before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search_spaces.space import Space
from tests.trainables.classification.makers import write_images, write_table
from tests.trainables.lora.text import small_model
from tests.tune_lora.studies import RATES
from trainables import demo_character
from trainables.curve import Curve
from trainables.diffusion_lora import DiffusionLora
from tune_lora import build, spec
from tune_lora.errors import InputErrors


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("TUNE_LORA_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def character(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("character")
    demo_character.write_dataset(folder, count=12)
    return folder


def study(dataset: Path | str, **changes: Any) -> spec.StudySpec:
    mapping = {"name": "mine", "dataset": {"path": str(dataset)}, "space": "lora_tiny"}
    return spec.from_mapping(mapping | changes, "test")


def mistakes(*args: Any, **changes: Any) -> tuple[str, ...]:
    with pytest.raises(InputErrors) as caught:
        build.plan(study(*args, **changes))
    assert all(line and "\n" not in line for line in caught.value.mistakes)
    return caught.value.mistakes


def test_a_study_becomes_its_space_and_its_trainer(character):
    ready = build.plan(study(character, budget={"trial_timeout_hours": 0.5}, evaluation={"n_images": 4}))
    assert ready.space.name == "lora_tiny"
    assert isinstance(ready.trainer, DiffusionLora)
    assert ready.trainer.dataset == str(character)
    assert ready.trainer.trial_timeout_seconds == 1800
    assert ready.trainer.evaluation.n_images == 4


def test_every_mistake_is_found_at_once(tmp_path):
    space = {"parameters": RATES["parameters"] | {"network_dim": {"type": "categoricl", "choices": [4]}}}
    weights = {"clip": str(tmp_path / "clip.pt"), "lpips": str(tmp_path / "lpips.pt")}
    found = mistakes(tmp_path / "images", base=str(tmp_path / "base"), space=space, evaluation=weights)
    expected = {"categorical": "categoricl", "base": str(tmp_path / "base"), "dataset": str(tmp_path / "images")}
    for what, got in (expected | weights).items():
        assert [line for line in found if got in line], (what, found)
    assert len(found) == 5


def test_a_misspelt_space_is_named_beside_the_others(tmp_path):
    found = mistakes(tmp_path / "images", space="lora_tinny")
    assert [line for line in found if "did you mean 'lora_tiny'" in line]
    assert [line for line in found if str(tmp_path / "images") in line]


def test_what_the_trainer_does_not_know_is_named_once_with_what_it_knows(character):
    space = RATES | {"parameters": RATES["parameters"] | {
        "network_dim": {"type": "categorical", "choices": [4, 8]},
        "optimizer_type": {"type": "categorical", "choices": ["AdamW", "AdamWW"]},
    }}  # fmt: skip
    (alpha, optimizer) = mistakes(character, space=space)
    assert alpha.startswith("space: network_alpha is missing")
    assert optimizer.startswith("space: optimizer_type: got 'AdamWW'; did you mean 'AdamW'?")


@pytest.mark.parametrize(("setting", "value"), [("clip", "absent.pt"), ("lpips", "absent.pth")])
def test_weights_that_are_not_there(character, setting, value):
    (line,) = mistakes(character, evaluation={setting: value})
    assert line.startswith(f"evaluation.{setting}: {value!r} does not exist; must be")


def test_an_unknown_preset_and_a_derived_value_that_is_fixed(character):
    (line,) = mistakes(character, preset="agressive")
    assert "did you mean 'aggressive'" in line
    (line,) = mistakes(character, fixed={"network_alpha": 8})
    assert "fixed.network_alpha: is derived" in line


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", True), ("bf16", False)])
def test_the_precision_of_the_study_reaches_the_rules_of_the_space(character, precision, allowed):
    space = build.plan(study(character, space="lora_v2_1", precision=precision)).space
    careful = {
        "network_dim": 64,
        "network_alpha_ratio": 1.2,
        "learning_rate": 4e-5,
        "text_encoder_lr": 3e-5,
        "optimizer_type": "AdamW",
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 200,
        "max_train_epochs": 21,
        "max_grad_norm": 0.5,
        "gradient_accumulation_steps": 4,
    }
    broken = [violation.name for violation in space.violations(space.resolve(careful))]
    assert broken == ([] if allowed else ["alpha_above_dim"])


def test_fixed_values_of_the_study_are_those_of_every_trial(character):
    space = build.plan(study(character, fixed={"network_dim": 16, "max_grad_norm": 0.3})).space
    assert "network_dim" not in space.parameters
    assert {(config["network_dim"], config["max_grad_norm"]) for config in space.examples()} == {(16, 0.3)}


@pytest.mark.parametrize(
    ("fixed", "left_out"),
    [
        ({"max_steps": 12}, {"epochs"}),
        ({"gradient_accumulation_steps": 2}, {"effective_batch_size"}),
        ({"epochs": 2, "effective_batch_size": 8}, set()),
    ],
    ids=["steps", "accumulation", "same"],
)
def test_what_a_text_study_fixes_takes_the_place_of_what_its_space_says_otherwise(tmp_path, fixed, left_out):
    space = build.plan(text_study(tmp_path, fixed=fixed)).space
    assert {"epochs", "effective_batch_size"} - space.fixed.keys() == left_out
    assert fixed.items() <= space.fixed.items()


def test_what_a_text_study_itself_says_twice_is_a_mistake(tmp_path):
    with pytest.raises(InputErrors) as caught:
        build.plan(text_study(tmp_path, fixed={"epochs": 2, "max_steps": 12}))
    (line,) = caught.value.mistakes
    assert line == "space: epochs: got 2 beside max_steps 12, which wins; must be left out, or max_steps"


def text_study(folder: Path, **changes: Any) -> spec.StudySpec:
    data = small_model.write_data(folder / "questions.jsonl")
    given = {"name": "text", "trainer": "llm_lora", "base": "a/b", "text": {"path": str(data)}, "space": "llm_lora"}
    return spec.from_mapping(given | changes, "test")


def test_the_demo_character_is_drawn_into_the_cache_once(cache):
    ready = build.plan(study("demo-character"))
    assert isinstance(ready.trainer, DiffusionLora)
    folder = Path(ready.trainer.dataset)
    assert folder.is_relative_to(cache)
    drawn = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert len([path for path in drawn if path.suffix == ".png"]) >= 24
    assert build.plan(study("demo-character")).trainer == ready.trainer
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == drawn


def test_a_study_of_curves_needs_no_images():
    ready = build.plan(spec.from_mapping({"name": "curves", "trainer": "curve", "space": RATES}, "test"))
    assert isinstance(ready.trainer, Curve)


def test_a_misspelt_fixed_value_is_named(character):
    (line,) = mistakes(character, fixed={"max_grad_nrom": 0.5})
    assert "did you mean 'max_grad_norm'" in line


def test_fixed_values_reach_the_configurations(character):
    ready = build.plan(study(character, fixed={"weight_decay": 0.1, "max_grad_norm": 0.5}))
    config = ready.space.resolve(ready.space.defaults())
    assert (config["weight_decay"], config["max_grad_norm"]) == (0.1, 0.5)


def test_folds_are_refused_where_the_trainer_judges_in_none() -> None:
    asked = {"name": "s", "trainer": "curve", "space": "lora_tiny", "cross_validation": {"enabled": True}}
    with pytest.raises(InputErrors, match=r"cross_validation.enabled: got true, but the trainer curve judges in no"):
        build.plan(spec.from_mapping(asked, "study.yaml"))


def refused(**changes: Any) -> tuple[str, ...]:
    with pytest.raises(InputErrors) as caught:
        build.plan(spec.from_mapping({"name": "mine"} | changes, "test"))
    return caught.value.mistakes


RATE = {"type": "loguniform", "low": 1e-4, "high": 1e-2}
CURVED = {"optimizer.lr": RATE}
TRAINERS = {
    "classifier": ({"data": {"path": "demo-shapes"}}, CURVED, "training.epocs", "training.epochs"),
    "two_stage": ({"transfer": {"synthetic": {"seed": 0}}}, {"lr_pretrain": RATE}, "stage2_epocs", "stage2_epochs"),
}
OF_TWO_STAGES = {"encoder_hidden_dims": "16_8", "encoder_latent_dim": 4}


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("section", ["parameters", "fixed", "derived"])
def test_a_misspelt_name_of_a_space_is_a_mistake_with_the_nearest(cache, trainer, section):
    study, parameters, wrong, right = TRAINERS[trainer]
    given = {"parameters": {"type": "int", "low": 2, "high": 3}, "fixed": 3, "derived": "1 + 2"}[section]
    space: dict[str, Any] = {"name": "s", "parameters": dict(parameters)}
    if trainer == "two_stage":
        space["fixed"] = dict(OF_TWO_STAGES)
    space.setdefault(section, {})[wrong] = given
    (line,) = refused(trainer=trainer, space=space, **study)
    assert line.startswith(f"space: {section}.{wrong}: unknown setting; did you mean {right!r}?")


def test_a_name_that_an_expression_reads_is_no_mistake(cache):
    space = {
        "name": "s",
        "parameters": {
            "rate": RATE,
            "differs": {"type": "categorical", "choices": [False, True]},
            "optimizer.weight_decay": RATE | {"when": "differs"},
            "limit": {"type": "int", "low": 1, "high": 4},
        },
        "derived": {"optimizer.lr": "rate * 2"},
        "fixed": {"most": 0.5},
        "constraints": [{"name": "small", "rule": "rate < most * limit", "reason": "test"}],
    }
    given = {"trainer": "classifier", "data": {"path": "demo-shapes"}, "name": "s", "space": space}
    assert build.plan(spec.from_mapping(given, "test"))
    pinned = {"differs": True, "optimizer.weight_decay": 1e-3, "limit": 2}  # nothing reads `differs` any more
    assert build.plan(spec.from_mapping(given | {"fixed": pinned}, "test"))


@pytest.mark.parametrize("name", ["data.n_classes", "n_classes"])
def test_the_number_of_classes_is_the_same_for_all_trials(cache, name):
    given = {"trainer": "classifier", "data": {"path": "demo-shapes"}}
    space = {"name": "s", "parameters": CURVED | {name: {"type": "categorical", "choices": [2, 3]}}}
    (line,) = refused(space=space, **given)
    assert line.startswith(f"space: parameters.{name}: is another task for each value")
    assert line.endswith("must be fixed")
    assert build.plan(spec.from_mapping({"name": "s", "space": space, "fixed": {name: 3}} | given, "test"))


ALWAYS = {"val_acc", "val_loss", "f1_macro"}
OF_GROUPS = {"worst_group_acc", "acc_image", "acc_text"}
MEASURED = {
    "table": (None, None, ALWAYS),
    "table with groups": (None, "site", ALWAYS | OF_GROUPS),  # a group may be called image
    "images": (None, None, ALWAYS),
    "images with texts": ("text", None, ALWAYS | OF_GROUPS),
    "images with groups": (None, "shop", ALWAYS | OF_GROUPS),
}


@pytest.mark.parametrize("kind", MEASURED)
@pytest.mark.parametrize("metric", sorted(ALWAYS | OF_GROUPS))
def test_an_objective_is_one_that_this_kind_of_data_measures(tmp_path, kind, metric):
    text, group, measured = MEASURED[kind]
    path = write_table(tmp_path / "a.csv") if "table" in kind else write_images(tmp_path / "images")
    data = {"path": str(path), "text": text, "group": group}
    given = {"trainer": "classifier", "data": data, "space": "classifier_conservative", "name": "s"}
    study = spec.from_mapping(given | {"objective": {"metric": metric, "direction": "maximize"}}, "test")
    if metric in measured:
        assert build.plan(study)
    else:
        with pytest.raises(InputErrors) as caught:
            build.plan(study)
        (line,) = caught.value.mistakes
        assert line.startswith(f"objective.metric: got {metric!r}; ") and "val_acc" in line
        assert metric not in line.partition("available")[2]


def test_a_parameter_that_only_sounds_right_is_a_mistake(character):
    space = {
        "name": "s",
        "parameters": RATES["parameters"] | {"network_alpha_ratio": {"type": "uniform", "low": 0.2, "high": 0.8}},
        "fixed": {"network_dim": 8, "network_alpha": 4},
    }
    (line,) = mistakes(character, space=space)
    assert line.startswith("space: parameters.network_alpha_ratio: unknown setting")


@pytest.mark.parametrize("name", ["lora_tiny", "lora_tiny_full", "lora_v1", "lora_v2_1"])
def test_the_names_of_shipped_spaces_are_all_in_use(character, name):
    assert build.plan(study(character, space=name))


def test_the_parameters_of_other_phases_may_be_pinned(cache):
    space = Space.load("multimodal_phases")
    defaults = space.complete({"differential_lr": True, "groupdro_enabled": True})
    given = {"name": "s", "trainer": "classifier", "data": {"path": "demo-shapes"}, "space": "multimodal_phases"}
    pinned = {name: value for name, value in defaults.items() if name != "batch_size"}
    found = build.unknown(spec.from_mapping(given | {"fixed": pinned}, "test"))
    assert list(found) == []
