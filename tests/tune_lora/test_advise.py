"""Rules of thumb: each one fires where it should and nowhere else, and a finished study has its say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from typer.testing import CliRunner

from search_spaces.space import Space
from trainables.classification.settings import RULES as CLASSIFIER_RULES
from tune_lora import advise, store
from tune_lora.advise import Subject
from tune_lora.cli import app
from tune_lora.errors import InputError
from tune_lora.trainers import KINDS

IMAGES = {"model.architecture": "resnet18", "optimizer.lr": 1e-4}
DRO = {"groupdro.enabled": True, "groupdro.eta": 0.005, "groupdro.gamma": 0.95, "groupdro.warmup_epochs": 5}
CHARACTER = {
    "learning_rate": 8e-5,
    "network_dim": 128,
    "network_alpha_ratio": 0.5,
    "network_alpha": 64,
    "optimizer_type": "AdamW",
    "gradient_accumulation_steps": 2,
    "lr_warmup_steps": 150,
    "max_train_epochs": 16,
}
TEXT = {"lora_rank": 16, "lora_alpha": 32, "learning_rate": 2e-4}

# What fires a rule, and its nearest neighbour that does not.
FIRES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one_rate_on_a_pretrained_backbone": (
        IMAGES | {"optimizer.lr": 1e-3},
        IMAGES | {"optimizer.lr": 1e-3, "optimizer.lr_backbone": 1e-4, "optimizer.lr_new": 1e-3},
    ),
    "rates_by_layer": (
        IMAGES | {"optimizer.lr_backbone": 1e-4, "optimizer.lr_new": 1e-3},
        IMAGES | {"optimizer.lr_backbone": 1e-3, "optimizer.lr_new": 1e-3},
    ),
    "small_batch": (IMAGES | {"training.batch_size": 32}, IMAGES | {"training.batch_size": 48}),
    "large_batch": (IMAGES | {"training.batch_size": 64}, IMAGES | {"training.batch_size": 48}),
    "small_latent": (IMAGES | {"latent_dim": 64}, {"latent_dim": 64, "architecture": "resnet_mini"}),
    "head_out_of_proportion": (
        IMAGES | {"model.latent_dim": 128, "model.head_hidden": 128},
        IMAGES | {"model.latent_dim": 128, "model.head_hidden": 256},
    ),
    "test_epochs": (IMAGES | {"max_epochs": 10}, IMAGES | {"max_epochs": 11}),
    "quick_epochs": (IMAGES | {"training.epochs": 20}, IMAGES | {"training.epochs": 50}),
    "run_epochs": (IMAGES | {"training.epochs": 50}, IMAGES | {"training.epochs": 49}),
    "text_without_order": (IMAGES | {"text_encoder": "mlp"}, IMAGES | {"text_encoder": "char_cnn"}),
    "no_schedule": (IMAGES, IMAGES | {"lr_schedule": "cosine"}),
    "clipped": (IMAGES | {"grad_clip": 1.0}, IMAGES | {"grad_clip": 0.0}),
    "usual_decay": (IMAGES | {"weight_decay": 1e-4}, IMAGES | {"weight_decay": 1e-2}),
    "adam": (IMAGES | {"optimizer.type": "adam"}, IMAGES | {"optimizer.type": "sgd"}),
    "eager_groups": (DRO | {"groupdro.eta": 0.01}, DRO),
    "jumpy_groups": (DRO | {"groupdro.gamma": 0.9}, DRO),
    "short_group_warmup": (DRO | {"groupdro.warmup_epochs": 2}, DRO),
    "weak_fit": (IMAGES | {"lambda_fit": 1e-3}, IMAGES),
    "weak_separation": (IMAGES | {"lambda_sep": 1e-3}, IMAGES),
    "strong_fit": (IMAGES | {"lambda_fit": 0.1}, IMAGES | {"lambda_fit": 0.01}),
    "strong_separation": (IMAGES | {"lambda_sep": 0.1}, IMAGES | {"lambda_sep": 0.01}),
    "many_classes": (IMAGES | {"n_classes": 15}, IMAGES | {"n_classes": 10}),
    "high_lr_8bit": (
        CHARACTER | {"learning_rate": 1.3e-4, "optimizer_type": "AdamW8bit"},
        CHARACTER | {"learning_rate": 1.3e-4},
    ),
    "alpha_equals_dim": (CHARACTER | {"network_alpha": 128}, CHARACTER),
    "high_dim_few_epochs": (CHARACTER | {"network_dim": 256, "max_train_epochs": 12}, CHARACTER | {"network_dim": 256}),
    "high_lr_low_warmup": (
        CHARACTER | {"learning_rate": 1.1e-4, "lr_warmup_steps": 50},
        CHARACTER | {"lr_warmup_steps": 50},
    ),
    "high_lr_no_accumulation": (
        CHARACTER | {"learning_rate": 1.15e-4, "gradient_accumulation_steps": 1},
        CHARACTER | {"learning_rate": 1.15e-4},
    ),
    "high_alpha_safety": (
        CHARACTER | {"network_alpha_ratio": 0.75, "lr_warmup_steps": 100},
        CHARACTER | {"network_alpha_ratio": 0.75},
    ),
    "very_high_alpha_lr": (
        CHARACTER | {"network_alpha_ratio": 0.85, "learning_rate": 1.1e-4},
        CHARACTER | {"network_alpha_ratio": 0.85},
    ),
    "alpha_above_dim": (CHARACTER | {"network_alpha_ratio": 1.5}, CHARACTER | {"network_alpha_ratio": 1.0}),
    "ratio_of_style": (CHARACTER | {"network_alpha_ratio": 0.125}, CHARACTER | {"network_alpha_ratio": 0.25}),
    "ratio_usual": (CHARACTER, CHARACTER | {"network_alpha_ratio": 0.75}),
    "ratio_of_memory": (
        CHARACTER | {"network_alpha_ratio": 0.8},
        CHARACTER | {"network_alpha_ratio": 0.8, "lr_warmup_steps": 50},
    ),
    "ratio_unregularised": (CHARACTER | {"network_alpha_ratio": 1.0}, CHARACTER | {"network_alpha_ratio": 0.9}),
    "llm_ratio": (TEXT, TEXT | {"lora_alpha": 64}),
    "llm_rate": (TEXT | {"learning_rate": 1e-3}, TEXT),
}


def trainer_of(rule: str) -> str:
    return next(one.trainer for one in advise.rules() if one.id == rule)


def said(config: Mapping[str, Any], trainer: str) -> set[str]:
    return {one.rule for one in advise.about(Subject(config, trainer))}


def test_every_rule_is_tested_and_named_once() -> None:
    ids = [one.id for one in advise.rules()]
    assert len(ids) == len(set(ids)) >= 30
    assert set(ids) == set(FIRES)


@pytest.mark.parametrize("rule", FIRES)
def test_a_rule_fires_where_it_should_and_not_beside_it(rule: str) -> None:
    fires, does_not = FIRES[rule]
    assert rule in said(fires, trainer_of(rule))
    assert rule not in said(does_not, trainer_of(rule))


@pytest.mark.parametrize("rule", advise.rules(), ids=lambda one: one.id)
def test_a_rule_is_complete_and_speaks_of_settings_that_exist(rule: advise.Rule) -> None:
    assert rule.status in advise.STATUSES and rule.priority in (1, 2, 3)
    assert rule.why and rule.risk and rule.source
    assert rule.try_ or rule.status == "good"
    known = {*(KINDS[rule.trainer].rules or {}), *yaml.safe_load(advise.RULES_FILE.read_text())["facts"]}
    known |= {"network_alpha_ratio"}
    assert {rule.about, *rule.when.names, *rule.better.names} <= known


@pytest.mark.parametrize("rule", [one for one in advise.rules() if one.status != "good"], ids=lambda one: one.id)
def test_what_fires_a_complaint_is_not_what_it_recommends(rule: advise.Rule) -> None:
    subject = Subject(FIRES[rule.id][0], rule.trainer)
    values = advise.facts(subject.config, subject)
    if (better := rule.holds(rule.better, values)) is not None:
        assert not better


@given(
    st.fixed_dictionaries(
        {
            "learning_rate": st.sampled_from([4e-5, 8e-5, 1.05e-4, 1.15e-4, 1.25e-4]),
            "network_dim": st.sampled_from([64, 128, 256]),
            "network_alpha_ratio": st.sampled_from([0.25, 0.5, 0.75, 0.8, 0.85, 0.9, 1.0]),
            "optimizer_type": st.sampled_from(["AdamW", "AdamW8bit"]),
            "gradient_accumulation_steps": st.sampled_from([1, 2, 4]),
            "lr_warmup_steps": st.sampled_from([50, 100, 150]),
            "max_train_epochs": st.sampled_from([12, 16, 20]),
        }
    )
)
def test_the_rules_of_a_lora_are_those_of_its_space(params: dict[str, Any]) -> None:
    space = Space.load("lora_v2_1")
    config = space.resolve(params)
    names = {one.name for one in space.constraints} - {"alpha_above_dim"}
    broken = {violation.name for violation in space.violations(config)} & names
    assert said(config, "diffusion_lora") & names == broken


def test_a_miniature_is_not_held_to_the_numbers_of_a_big_model(tmp_path: Path) -> None:
    config = Space.load("lora_tiny")
    path = tmp_path / "best_config.yaml"
    path.write_text(yaml.safe_dump(config.resolve(config.defaults())))
    assert advise.advise(path)
    (tmp_path / "study.yaml").write_text("name: x\nspace: lora_tiny\nbase: tiny-sd\ndataset: {path: demo-character}\n")
    assert advise.advise(path) == []


def test_nested_flat_and_short_names_say_the_same(tmp_path: Path) -> None:
    forms = {
        "nested": {"optimizer": {"lr": 1e-3}, "training": {"batch_size": 32}, "model": {"architecture": "resnet18"}},
        "flat": {"optimizer.lr": 1e-3, "training.batch_size": 32, "model.architecture": "resnet18"},
        "short": {"lr": 1e-3, "batch_size": 32, "architecture": "resnet18"},
    }
    found = []
    for name, config in forms.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        found.append(advise.advise(path))
    assert found[0] == found[1] == found[2]
    assert (found[0][0].rule, found[0][0].status) == ("one_rate_on_a_pretrained_backbone", "bad")
    order = [(advise.STATUSES.index(one.status), one.priority) for one in found[0]]
    assert order == sorted(order)


def test_a_study_file_is_judged_by_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: x\nspace: lora_v2_1\nbase: sd15.safetensors\ndataset: {path: images}\n")
    assert [one.rule for one in advise.advise(path)] == ["ratio_usual"]


def test_a_study_of_another_trainer_has_nothing_to_do_with_it(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: x\nspace: lora_v2_1\ndataset: {path: images}\n")
    path = tmp_path / "c.yaml"
    path.write_text("optimizer: {lr: 1e-3}\ntraining: {batch_size: 32}\n")
    assert "small_batch" in {one.rule for one in advise.advise(path)}
    finished(tmp_path / "x", 3, 0.1)
    path.write_text("network_dim: 64\nnetwork_alpha: 64\n")
    with pytest.raises(InputError, match="holds no settings of classifier, the trainer of the study 'x'"):
        advise.advise(path, tmp_path / "x")


def test_what_is_no_configuration_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("colour: green\n")
    with pytest.raises(InputError, match="holds no setting of any trainer"):
        advise.advise(path)


BATCHES: dict[str, BaseDistribution] = {
    "training.batch_size": CategoricalDistribution([16, 32, 64, 128]),
    "optimizer.lr": FloatDistribution(1e-5, 1e-1, log=True),
}


def finished(folder: Path, n: int, gain: float) -> Path:
    """A study in which a batch of 64 or more is worth `gain`."""
    folder.mkdir(parents=True)
    study = store.open_study(store.sqlite_url(folder), "x", "maximize")
    rng = np.random.default_rng(0)
    for _ in range(n):
        params = {
            "training.batch_size": int(rng.choice([16, 32, 64, 128])),
            "optimizer.lr": float(10 ** rng.uniform(-5, -1)),
        }
        value = 0.5 + gain * (params["training.batch_size"] >= 64) + rng.normal(0, 0.01)
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                value=value,
                params=params,
                distributions=BATCHES,
                user_attrs={store.CONFIG: params},
            )
        )
    study.set_user_attr(
        store.SPEC,
        {"name": "x", "trainer": "classifier", "data": {"path": "demo-shapes"}, "space": "classifier_comprehensive"},
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return folder


@pytest.mark.parametrize(
    ("n", "gain", "verdict"),
    [
        (40, 0.2, "5 of the best 5 keep it: supported"),
        (40, -0.2, "contradicted"),
        (40, 0.0, ""),
        (6, 0.2, "too few trials (6 completed, 10 or more would tell)"),
    ],
)
def test_a_study_supports_or_contradicts_a_rule(tmp_path: Path, n: int, gain: float, verdict: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("training.batch_size: 32\noptimizer.lr: 0.001\n")
    found = {one.rule: one.measured for one in advise.advise(config, finished(tmp_path / "x", n, gain))}
    assert found["small_batch"].endswith(verdict)
    assert ("importance" in found["small_batch"]) == (n >= 10)
    assert found["no_schedule"] == "not searched there"
    if gain == -0.2:
        assert "the best 5 had training.batch_size" in found["small_batch"]
    if gain == 0.0:
        assert "supported" not in found["small_batch"] and "contradicted" not in found["small_batch"]


def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("training: {batch_size: 32}\noptimizer: {lr: 0.001}\n")
    table = CliRunner().invoke(app, ["advise", str(config)], env={"COLUMNS": "200"})
    assert table.exit_code == 0
    for word in (
        "setting",
        "value",
        "status",
        "why",
        "what to try",
        "priority",
        "risk",
        "could be better",
        "sources: ",
    ):
        assert word in table.stdout
    narrow = CliRunner().invoke(app, ["advise", str(config)], env={"COLUMNS": "80"})
    said = (
        "training.batch_size 32: could be better (priority 1; risk: low",
        "  what to try: 64, or 128 if memory allows",
    )
    assert all(words in narrow.stdout for words in said)
    plain = CliRunner().invoke(app, ["advise", str(config), "--json"])
    entries = {entry["rule"]: entry for entry in json.loads(plain.stdout)}
    assert entries["small_batch"]["value"] == 32 and entries["small_batch"]["priority"] == 1


def test_names_of_the_classifier_are_the_trainers_own() -> None:
    assert {one.about for one in advise.rules() if one.trainer == "classifier"} <= set(CLASSIFIER_RULES)
