"""The image trainer really trains tiny-sd: contract, learning, caches, causes and what it leaves in its folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.contracts.trainer import TrainerContract
from trainables import demo_character
from trainables.diffusion_lora import METRICS, DiffusionLora, ImageEvaluation
from trainables.lora import cache
from trainables.protocol import Cause, TrialContext, TrialFailure
from tune_lora.errors import InputError

PARAMS = {
    "network_dim": 4,
    "network_alpha": 2.0,
    "learning_rate": 3e-3,
    "text_encoder_lr": 5e-4,
    "optimizer_type": "AdamW",
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 2,
    "gradient_accumulation_steps": 2,
    "max_train_epochs": 3,
    "max_grad_norm": 0.8,
    "min_snr_gamma": 5.0,
}
QUICK = ImageEvaluation(n_images=3, steps=2)


@pytest.fixture(scope="module")
def character(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("character")
    demo_character.write_dataset(folder, count=12)
    return folder


pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture(scope="module")
def shared():
    return {}


def trainer_on(folder, **changes):
    return DiffusionLora("tiny-sd", str(folder), evaluation=QUICK, **changes)


def context(folder, shared, **changes):
    params = PARAMS | changes.pop("params", {})
    return TrialContext(params=params, folder=folder, seed=3, shared=shared, **changes)


class TestDiffusionLora(TrainerContract):
    tolerance = 1e-4

    @pytest.fixture
    def trainer(self, character):
        return trainer_on(character)

    @pytest.fixture
    def params(self):
        return PARAMS


def test_the_last_report_holds_what_a_study_may_be_about(character, tmp_path, shared):
    last = list(trainer_on(character).run(context(tmp_path, shared, params={"max_train_epochs": 1})))[-1]
    assert set(last.metrics) == set(METRICS)


def test_images_are_judged_where_somebody_decides_and_at_the_end(character, tmp_path, shared):
    reports = list(trainer_on(character).run(context(tmp_path, shared, decide_at=frozenset({2}))))
    assert ["score" in report.metrics for report in reports] == [False, True, True]
    assert all("val_loss" in report.metrics for report in reports)
    for report in reports[1:]:
        (path,) = report.images.values()
        assert Image.open(path).size[0] > 64


def test_the_validation_loss_falls_below_the_untrained_base(character, tmp_path, shared):
    trainer = trainer_on(character)
    base = trainer.prepare(context(tmp_path, shared))["baseline"]
    reports = list(trainer.run(context(tmp_path, shared, params={"max_train_epochs": 4})))
    assert reports[-1].metrics["val_loss"] < base["val_loss"]


def test_the_base_is_what_it_was_after_a_trial(character, tmp_path, shared):
    trainer = trainer_on(character)
    before = trainer.prepare(context(tmp_path, shared))["baseline"]
    list(trainer.run(context(tmp_path, shared, params={"max_train_epochs": 1})))
    assert trainer.prepare(context(tmp_path, shared))["baseline"] == pytest.approx(before)


def test_preparing_says_what_the_numbers_are_worth(character, tmp_path, shared):
    found = trainer_on(character).prepare(context(tmp_path, shared))
    assert found["calibration"]["calibrated"] is False
    assert any("uncalibrated" in note for note in found["calibration"]["notes"])
    assert set(found["images"]) == {"base", "reference"}
    assert all(Path(path).is_file() for path in found["images"].values())


def test_latents_are_computed_once_for_all_trials_and_never_stale(character, tmp_path, monkeypatch):
    calls = []
    encode = cache._encode
    monkeypatch.setattr(cache, "_encode", lambda *arguments: calls.append(1) or encode(*arguments))
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path / "cache"))
    copy = tmp_path / "images"
    copy.mkdir()
    for path in character.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    trainer = trainer_on(copy)
    for _ in range(3):  # three workers, each with a memory of its own
        trainer.prepare(context(tmp_path, {}))
    assert len(calls) == 2  # training and held-out images
    changed = next(copy.glob("*.png"))
    Image.fromarray(255 - np.asarray(Image.open(changed).convert("RGB"))).save(changed)
    trainer.prepare(context(tmp_path, {}))
    assert len(calls) > 2


def test_a_damaged_cache_is_made_again(character, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path / "cache"))
    trainer = trainer_on(character)
    first = trainer.prepare(context(tmp_path, {}))["baseline"]
    for path in (tmp_path / "cache" / "latents").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert trainer.prepare(context(tmp_path, {}))["baseline"] == pytest.approx(first)


def test_nan_in_the_weights_ends_the_trial_with_its_cause(character, tmp_path, shared):
    running = trainer_on(character).run(context(tmp_path, shared))
    next(running)
    unet = shared["diffusion_lora"][1].base.unet
    broken = next(parameter for name, parameter in unet.named_parameters() if "lora_A" in name)
    with torch.no_grad():
        broken.fill_(float("nan"))
    with pytest.raises(TrialFailure) as caught:
        next(running)
    assert caught.value.cause is Cause.NAN_LOSS


def test_a_configuration_that_destroys_the_images_fails_with_a_cause(character, tmp_path, shared):
    wild = {"learning_rate": 1e3, "text_encoder_lr": 1e3, "network_alpha": 400.0, "optimizer_type": "Lion"}
    with pytest.raises(TrialFailure) as caught:
        list(trainer_on(character).run(context(tmp_path, shared, params=wild)))
    assert caught.value.cause in (Cause.NAN_LOSS, Cause.GRADIENT_EXPLOSION, Cause.BLACK_IMAGES)


def test_a_trial_past_its_time_ends_with_a_cause(character, tmp_path, shared):
    with pytest.raises(TrialFailure) as caught:
        list(trainer_on(character, trial_timeout_seconds=1e-6).run(context(tmp_path, shared)))
    assert caught.value.cause is Cause.TRIAL_TIMEOUT and "limit" in caught.value.message


def test_a_frozen_text_encoder_gets_no_adapter(character, tmp_path, shared):
    list(trainer_on(character).run(context(tmp_path, shared, params={"text_encoder_lr": 0.0, "max_train_epochs": 1})))
    from safetensors.torch import load_file

    files = list((tmp_path / "lora").glob("*.safetensors"))
    assert files
    names = [name for path in files for name in load_file(path)]
    assert names and not [name for name in names if "te_" in name or "text_encoder" in name]


@pytest.mark.parametrize("optimizer", ["AdamW", "AdamW8bit", "Lion", "Adafactor"])
def test_every_optimizer_of_the_spaces_trains(character, tmp_path, shared, optimizer):
    params = {"optimizer_type": optimizer, "max_train_epochs": 1, "learning_rate": 5e-4}
    report = list(trainer_on(character).run(context(tmp_path, shared, params=params)))[-1]
    assert 0 < report.metrics["train_loss"] < 1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "network_dim is missing"),
        (PARAMS | {"optimizer_type": "AdamW8bits"}, "did you mean 'AdamW8bit'"),
        (PARAMS | {"lr_scheduler": "cosin"}, "did you mean 'cosine'"),
        (PARAMS | {"network_dim": "eight"}, "network_dim: got 'eight'; must be a whole number from 1"),
        (PARAMS | {"max_train_epochs": 0}, "max_train_epochs: got 0; must be a whole number from 1"),
        (PARAMS | {"learning_rate": "1e-4"}, "learning_rate: got '1e-4'; must be a number"),  # a word to YAML
        (PARAMS | {"weight_decay": float("nan")}, "weight_decay: got nan"),
        (PARAMS | {"network_dropout": 1.5}, "network_dropout: got 1.5; must be a share"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_said_before_anything_is_loaded(params, message):
    assert any(message in mistake for mistake in DiffusionLora("tiny-sd", "nowhere").check(params))


def test_the_real_character_is_learnt(data, tmp_path, shared):
    trainer = DiffusionLora("tiny-sd", str(data / "fluent3d" / "character"), {"repeats": 1}, evaluation=QUICK)
    base = trainer.prepare(context(tmp_path, shared))["baseline"]
    params = {"network_dim": 8, "network_alpha": 4.0, "learning_rate": 4e-3, "max_train_epochs": 2}
    last = list(trainer.run(context(tmp_path, shared, params=params)))[-1].metrics
    assert last["val_loss"] < base["val_loss"]


def test_weights_too_large_for_a_lora_file_end_the_trial_with_a_cause(character, tmp_path, shared):
    running = trainer_on(character).run(context(tmp_path, shared))
    next(running), next(running)
    unet = shared["diffusion_lora"][1].base.unet
    grown = next(parameter for name, parameter in unet.named_parameters() if "lora_A" in name)
    with torch.no_grad():
        grown[0, 0] = 1e6
    with pytest.raises(TrialFailure) as caught:
        next(running)
    assert caught.value.cause in (Cause.GRADIENT_EXPLOSION, Cause.NAN_LOSS)


def test_captions_in_ever_new_orders_are_not_kept(character, tmp_path, shared):
    trainer = trainer_on(character, dataset_settings={"shuffle_caption": True})
    list(trainer.run(context(tmp_path, shared, params={"text_encoder_lr": 0.0, "max_train_epochs": 2})))
    assert not shared.get("text_states")


def test_a_failed_trial_leaves_the_base_in_evaluation_mode(character, tmp_path, shared):
    with pytest.raises(TrialFailure):
        list(trainer_on(character).run(context(tmp_path, shared, params={"learning_rate": 1e30})))
    base = shared["diffusion_lora"][1].base
    assert not base.unet.training and not base.text_encoder.training


def test_the_untrained_base_is_judged_in_the_precision_that_is_fixed(character, tmp_path):
    shared = {}
    trainer_on(character).prepare(TrialContext({"precision": "bf16"}, tmp_path, shared=shared))
    assert shared["diffusion_lora"][1].base.unet.dtype == torch.bfloat16


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_as_well(character, tmp_path, shared, precision):
    exact = list(trainer_on(character).run(context(tmp_path, shared)))[-1].metrics
    half = {}
    last = list(trainer_on(character).run(context(tmp_path, half, params={"precision": precision})))[-1].metrics
    assert last["val_loss"] == pytest.approx(exact["val_loss"], rel=0.03) and "score" in last
    base = half["diffusion_lora"][1].base
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    assert (base.unet.dtype, base.text_encoder.dtype, base.vae.dtype) == (kinds[precision],) * 2 + (torch.float32,)
    assert load_file(tmp_path / "lora" / "lora.safetensors")


def test_a_misspelt_block_is_named_also_of_a_model_that_is_not_trained(character, tmp_path, shared):
    misspelt = {"network_dim.mid_blok": 2}
    with pytest.raises(InputError, match="rank of 'mid_blok': no layer's name begins so; did you mean 'mid_block'"):
        next(trainer_on(character).run(context(tmp_path, shared, params=misspelt)))
    frozen = {"text_encoder_lr": 0.0, "network_dim.encoder.layers.0": 2, "max_train_epochs": 1}
    assert list(trainer_on(character).run(context(tmp_path, shared, params=frozen)))[-1].final


def test_activations_that_are_computed_twice_change_nothing_but_memory(character, tmp_path, shared):
    losses = []
    for twice in (False, True):
        running = trainer_on(character).run(context(tmp_path, shared, params={"gradient_checkpointing": twice}))
        losses.append(next(running).metrics["val_loss"])
        unet = shared["diffusion_lora"][1].base.unet
        assert unet.is_gradient_checkpointing is twice
        running.close()
        assert not unet.is_gradient_checkpointing
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_text_embeddings_are_computed_once_while_the_text_encoder_is_frozen(character, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path / "cache"))
    frozen = {"text_encoder_lr": 0.0, "max_train_epochs": 2}
    settings = {"shuffle_caption": False, "caption_dropout": 0.2}
    trainer = trainer_on(character, dataset_settings=settings)
    first = list(trainer.run(context(tmp_path, {}, params=frozen)))
    (entry,) = (tmp_path / "cache" / "text").iterdir()
    written = entry.stat().st_mtime_ns
    again = list(trainer.run(context(tmp_path, {}, params=frozen)))  # another worker
    assert entry.stat().st_mtime_ns == written
    assert again[-1].metrics == pytest.approx(dict(first[-1].metrics), rel=1e-4)
    entry.write_bytes(b"damaged")
    healed = list(trainer.run(context(tmp_path, {}, params=frozen)))
    assert healed[-1].metrics == pytest.approx(dict(first[-1].metrics), rel=1e-4)
