"""The table of settings: both names, the rules, and what means nothing for some data."""

from __future__ import annotations

import pytest

from trainables.classification.settings import RULES, SETTINGS, check, chosen

GOOD = {"optimizer.lr": 1e-3}


def test_names_and_aliases_are_all_different() -> None:
    names = [name for setting in SETTINGS for name in (setting.name, setting.alias)]
    assert len(names) == len(set(names)) == len(RULES)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_default_keeps_its_own_rule_and_is_read_under_both_names(setting) -> None:
    value = 0.5 if setting.default is None else setting.default
    if setting.default is not None:
        assert setting.rule.mistake(setting.name, value) is None
    assert chosen({setting.alias: value})[setting.name] == chosen({setting.name: value})[setting.name] == value


def test_what_the_phases_of_the_users_guide_say_is_known() -> None:
    said = (
        "batch_size max_epochs text_encoder lr_schedule latent_dim head_hidden lr_backbone lr_new groupdro_enabled "
        "groupdro_eta groupdro_gamma groupdro_warmup_epochs groupdro_update_mode groupdro_objective lambda_fit "
        "lambda_sep optimizer weight_decay grad_clip anchor_eps sep_samples_per_class sep_method n_classes lr"
    )
    assert set(said.split()) <= RULES.keys()


def test_one_setting_under_two_names_is_a_mistake() -> None:
    (mistake,) = check({"optimizer.lr": 1e-3, "lr": 1e-2})
    assert mistake == "lr: got 0.01 beside optimizer.lr 0.001, which is the same setting; must be given once"


def test_a_rate_is_needed_and_two_rates_are_enough() -> None:
    assert "optimizer.lr is missing" in check({})[0]
    assert check({"lr_backbone": 1e-4, "optimizer.lr_new": 1e-3}) == []
    assert "missing" in check({"lr_backbone": 1e-4})[0]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"optimizer.lr": "1e-3"}, "optimizer.lr: got '1e-3'; must be a number from 0, such as 0.0001 or 1.0e-4"),
        ({"optimizer": "adm", **GOOD}, "optimizer: got 'adm'; did you mean 'adam'? (available: adam, adamw, sgd)"),
        ({"batch_size": 1, **GOOD}, "batch_size: got 1; must be a whole number from 2"),
        ({"dropout": 1.0, **GOOD}, "dropout: got 1.0; must be a share from 0, below 1"),
        ({"widths": "16-32", **GOOD}, "widths: got '16-32'; must be whole numbers joined by '_', such as 128_64"),
    ],
)
def test_a_wrong_value_is_one_line(params, said) -> None:
    assert check(params) == [said]


def test_what_the_data_has_no_use_for_is_said() -> None:
    assert check({**GOOD, "text_encoder": "mlp"}, "image") == [
        "text_encoder: got 'mlp', but the data is of kind image; must be left out (it is for text, image_text)"
    ]
    assert check({**GOOD, "text_encoder": "mlp"}, "image_text") == []
    assert check({**GOOD, "text_encoder": "mlp"}) == []


def test_the_head_is_twice_the_latent_space_unless_set() -> None:
    assert chosen({"latent_dim": 128}).head_hidden("image_text") == 256
    assert chosen({"latent_dim": 128, "head_hidden": 100}).head_hidden("image_text") == 100
    assert chosen({}).latent_dim("image_text") == 64
    assert chosen({}).latent_dim("image") is None and chosen({}).head_hidden("image") is None
    assert chosen({"lambda_fit": 1e-3}).latent_dim("image") == 64  # anchors stand in a latent space


def test_the_studys_precision_holds_unless_the_configuration_says_its_own() -> None:
    assert chosen(GOOD, "bf16")["training.precision"] == "bf16"
    assert chosen({"precision": "fp32"}, "bf16")["training.precision"] == "fp32"
